//! What a newcomer reads and copies once everything is up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::Standalone;
use crate::demo::{Demo, PATH};

/// The frames that make a device hear of its user.
const FRAMES: [&str; 2] = [r#"{"op":"auth","token":"user-1001"}"#, r#"{"op":"subscribe","channel":"@user"}"#];
/// The body of the first publish.
const BODY: &str =
    r#"{"c":"user:1001","d":"{\"event\":\"@user\",\"data\":{\"uid\":1001,\"msg\":\"Hello,World!\"}}"}"#;

/// Where messages are published; with the place for name and key, where keys are needed.
fn url(publishing: SocketAddr, keyed: bool, tls: bool) -> String {
    let key = if keyed { "<name>:<key>@" } else { "" };
    let scheme = if tls { "https" } else { "http" };
    format!("{scheme}://{key}{}/v1/mesh/publish", reachable(publishing))
}

/// The publish of the first message, as a line for a shell.
pub fn curl(publishing: SocketAddr, keyed: bool, tls: bool) -> String {
    let url = url(publishing, keyed, tls);
    format!("curl --request POST '{url}' --header 'Content-Type: application/json' --data-raw '{BODY}'")
}

/// The lines for standard output.
pub fn text(standalone: &Standalone) -> String {
    let Standalone { clients, publishing, keyed, tls, .. } = *standalone;
    let scheme = if tls.clients { "wss" } else { "ws" };
    let devices = format!("{scheme}://{}{}", reachable(clients), standalone.path);
    let up = format!(
        "\nmessage center is up.\n\
         \n  devices connect to     {devices}{}\
         \n  back ends publish to   {}{}\
         \n  health and metrics     http://{}/readyz and /metrics\
         \n  messages are kept      {}\n\n",
        everywhere(clients),
        url(publishing, keyed, tls.publishing),
        everywhere(publishing),
        reachable(standalone.admin),
        standalone.kept,
    );
    let more = match standalone.demo {
        Some(demo) => tour(demo, &devices, &curl(publishing, keyed, tls.publishing)),
        None => "Devices log in with {\"op\":\"auth\",\"token\":\"...\"}; your business system checks the token.\n\n"
            .to_owned(),
    };
    up + &more
}

/// What to do in demo mode.
fn tour(demo: Demo, devices: &str, curl: &str) -> String {
    let [auth, subscribe] = FRAMES;
    let mut text = format!(
        "This is demo mode: everything is on loopback, and a demo business system on {address}\n\
         accepts the tokens user-<uid>. Try it:\n\
         \n1. Connect any WebSocket client, such as `npx wscat --connect {devices}`, and send\n\
         \n   {auth}\
         \n   {subscribe}\n\
         \n   Each is answered with {{\"result\":true}}. Or paste this into the console of a browser:\n\
         \n   ws = new WebSocket(\"{devices}\"); ws.onmessage = (event) => console.log(event.data); \
         ws.onopen = () => {{ ws.send('{auth}'); ws.send('{subscribe}'); }};\n\
         \n2. Publish from another terminal:\n\
         \n   {curl}\n\
         \n   It answers {{\"E\":null,\"r\":{{\"s\":1,\"f\":0}}}}, and the client receives the text of d.\n\
         \n3. Now with your own login: start with --auth-url http://127.0.0.1:8000{PATH}\n\
         \n   That address is asked with POST {{\"token\":\"...\"}}; {{\"uid\":1001}} is a yes.\n\n",
        address = demo.address,
    );
    if demo.address != demo.wanted {
        text.push_str(&format!(
            "Port {port} is taken, so the demo is on another one. If {port} is your business system, start with\n\
             --auth-url http://{wanted}{PATH}\n\n",
            port = demo.wanted.port(),
            wanted = demo.wanted,
        ));
    }
    text
}

/// Where this machine reaches what listens there.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

fn everywhere(address: SocketAddr) -> &'static str {
    if address.ip().is_unspecified() { "   (and at every address of this machine)" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_publish_is_the_one_of_the_manual() {
        let body = include_str!("../../../README.md")
            .split("--data-raw ")
            .nth(1)
            .and_then(|rest| rest.lines().next())
            .unwrap();
        assert_eq!(body, format!("'{BODY}'"));
        assert_eq!(
            curl(address("127.0.0.1:6789"), false, false),
            r#"curl --request POST 'http://127.0.0.1:6789/v1/mesh/publish' --header 'Content-Type: application/json' --data-raw '{"c":"user:1001","d":"{\"event\":\"@user\",\"data\":{\"uid\":1001,\"msg\":\"Hello,World!\"}}"}'"#
        );
        assert!(curl(address("0.0.0.0:80"), false, false).contains("'http://127.0.0.1:80/"));
        assert!(curl(address("0.0.0.0:80"), true, false).contains("'http://<name>:<key>@127.0.0.1:80/"));
        assert!(curl(address("0.0.0.0:80"), false, true).contains("'https://127.0.0.1:80/"));
    }

    #[test]
    fn whoever_has_the_port_of_the_demo_is_told_how_to_be_asked() {
        let wanted = address("127.0.0.1:8000");
        let tell = |address| tour(Demo { address, wanted }, "ws://127.0.0.1:1/x", "curl");
        assert!(!tell(wanted).contains("taken"));
        let told = tell(address("127.0.0.1:4567"));
        let told = told.split_once("Port 8000 is taken").unwrap().1;
        assert!(told.contains("If 8000 is your business system"), "{told}");
        assert!(told.contains("\n--auth-url http://127.0.0.1:8000/websocket_auth\n"), "{told}");
    }
}
