//! The text for standard output once everything is up: addresses, and in demo mode a tour to copy from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::Standalone;
use crate::demo::{Demo, PATH};
use crate::tour::Example;

/// The frame with which a device logs in.
const AUTH: &str = r#"{"op":"auth","token":"user-1001"}"#;

/// The credentials that publishing needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller<'a> {
    /// None: every program that reaches the port may publish.
    Anybody,
    /// A configured key, whose secret is not shown.
    WithKey,
    /// The name and the secret of the demo's own key, which the text shows.
    Demo(&'a str, &'a str),
}

impl Standalone {
    fn caller(&self) -> Caller<'_> {
        match &self.demo_key {
            Some(key) => Caller::Demo(&key.config().name, key.secret()),
            None if self.needs_key => Caller::WithKey,
            None => Caller::Anybody,
        }
    }
}

/// Returns the URL for publishing. Where keys are needed, it holds name and key, or placeholders for them.
fn url(publishing: SocketAddr, caller: Caller<'_>, tls: bool) -> String {
    let key = match caller {
        Caller::Anybody => String::new(),
        Caller::WithKey => "<name>:<key>@".to_owned(),
        Caller::Demo(name, secret) => format!("{name}:{secret}@"),
    };
    let scheme = if tls { "https" } else { "http" };
    format!("{scheme}://{key}{}/v1/mesh/publish", reachable(publishing))
}

/// Returns the publish of the first message, as a line for a shell.
pub fn curl(publishing: SocketAddr, caller: Caller<'_>, tls: bool, example: &Example) -> String {
    let (url, body) = (url(publishing, caller, tls), example.body());
    format!("curl --request POST '{url}' --header 'Content-Type: application/json' --data-raw '{body}'")
}

/// Returns the text for standard output.
pub fn text(standalone: &Standalone) -> String {
    let Standalone { clients, publishing, tls, .. } = *standalone;
    let caller = standalone.caller();
    let is_exposed = standalone.demo.is_some() && !clients.ip().is_loopback();
    let scheme = if tls.clients { "wss" } else { "ws" };
    let devices = format!("{scheme}://{}{}", reachable(clients), standalone.path);
    let up = format!(
        "\nmessage center is up.\n\
         \n  devices connect to     {devices}{}\
         \n  devices subscribe to   {}\
         \n  back ends publish to   {}{}\
         \n  health and metrics     http://{}/readyz and /metrics{}\
         \n  messages are kept      {}\n\n",
        if is_exposed { "" } else { everywhere(clients) },
        standalone.names,
        url(publishing, caller, tls.publishing),
        if is_exposed { "" } else { everywhere(publishing) },
        reachable(standalone.admin),
        if is_exposed { "   (inside the container)" } else { "" },
        standalone.storage,
    );
    let more = match standalone.demo {
        Some(demo) => {
            let example = standalone.example.as_ref();
            let steps = example.map_or_else(no_steps, |example| {
                steps(example, &devices, &curl(publishing, caller, tls.publishing, example))
            });
            mode(is_exposed, standalone.demo_key.is_some()) + &tour(demo, &steps)
        }
        None => "Devices log in with {\"op\":\"auth\",\"token\":\"...\"}; your business system checks the token.\n\n"
            .to_owned(),
    };
    up + &more
}

/// Says who reaches the demo, as the beginning of a sentence.
fn mode(is_exposed: bool, has_key: bool) -> String {
    let reach = if is_exposed {
        "it lets everybody log in who reaches it, so publish the ports of\nits container on loopback only"
    } else {
        "everything is on loopback"
    };
    let key = if has_key { ". The key is good until it ends" } else { "" };
    format!("This is demo mode: {reach}{key}, and a demo business system ")
}

/// Returns the steps in which a newcomer receives a first message.
fn steps(example: &Example, devices: &str, curl: &str) -> String {
    let subscribe = example.subscribe();
    format!(
        "1. Connect any WebSocket client, such as `npx wscat --connect {devices}`, and send\n\
         \n   {AUTH}\
         \n   {subscribe}\n\
         \n   Each is answered with {{\"result\":true}}. Or paste this into the console of a browser:\n\
         \n   ws = new WebSocket(\"{devices}\"); ws.onmessage = (event) => console.log(event.data); \
         ws.onopen = () => {{ ws.send('{AUTH}'); ws.send('{subscribe}'); }};\n\
         \n2. Publish from another terminal:\n\
         \n   {curl}\n\
         \n   It answers {{\"E\":null,\"r\":{{\"s\":1,\"f\":0}}}}, and the client receives the text of d.\n"
    )
}

/// Says why there are no steps to copy.
fn no_steps() -> String {
    "1. The rules in [[channels]] let a user who is in no group subscribe to nothing. Add a rule, such as\n\
     \n   { name = \"@user\", channel = \"user:{uid}\" }\n\
     \n2. Start again: this text then shows what to send and how to publish.\n"
        .to_owned()
}

/// Returns the tour of demo mode.
fn tour(demo: Demo, steps: &str) -> String {
    let mut text = format!(
        "on {address}\n\
         accepts the tokens user-<uid>. Try it:\n\
         \n{steps}\
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

/// Returns the address by which this machine reaches a listener: loopback, if it listens everywhere.
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
    use shared::rules::{Rules, default_rules};

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn default_example() -> Example {
        let rules = default_rules();
        Example::of(&rules, &Rules::compile(&rules).unwrap()).unwrap()
    }

    #[test]
    fn the_publish_is_the_one_of_the_manual() {
        let body = include_str!("../../../README.md")
            .split("--data-raw ")
            .nth(1)
            .and_then(|rest| rest.lines().next())
            .unwrap();
        let example = default_example();
        assert_eq!(body, format!("'{}'", example.body()));
        let curl = |address, caller, tls| curl(address, caller, tls, &example);
        assert_eq!(
            curl(address("127.0.0.1:6789"), Caller::Anybody, false),
            r#"curl --request POST 'http://127.0.0.1:6789/v1/mesh/publish' --header 'Content-Type: application/json' --data-raw '{"c":"user:1001","d":"{\"event\":\"@user\",\"data\":{\"uid\":1001,\"msg\":\"Hello,World!\"}}"}'"#
        );
        assert!(curl(address("0.0.0.0:80"), Caller::Anybody, false).contains("'http://127.0.0.1:80/"));
        assert!(
            curl(address("0.0.0.0:80"), Caller::WithKey, false)
                .contains("'http://<name>:<key>@127.0.0.1:80/")
        );
        assert!(curl(address("0.0.0.0:80"), Caller::Anybody, true).contains("'https://127.0.0.1:80/"));
        let demo = curl(address("0.0.0.0:80"), Caller::Demo("demo", "mck_1"), false);
        assert!(demo.contains("'http://demo:mck_1@127.0.0.1:80/"), "{demo}");
    }

    #[test]
    fn rules_without_a_channel_for_the_tour_are_explained() {
        let text = no_steps();
        assert!(text.contains("[[channels]]") && text.contains("user:{uid}"), "{text}");
    }

    #[test]
    fn a_taken_demo_port_is_explained_with_the_flag_for_a_business_system() {
        let wanted = address("127.0.0.1:8000");
        let tour_at = |address| tour(Demo { address, wanted }, "steps");
        assert!(!tour_at(wanted).contains("taken"));
        let text = tour_at(address("127.0.0.1:4567"));
        let text = text.split_once("Port 8000 is taken").unwrap().1;
        assert!(text.contains("If 8000 is your business system"), "{text}");
        assert!(text.contains("\n--auth-url http://127.0.0.1:8000/websocket_auth\n"), "{text}");
    }
}
