//! What a newcomer reads and copies once everything is up.

use crate::Standalone;

/// The publish of the first message, as a line for a shell.
pub fn curl(publishing: std::net::SocketAddr) -> String {
    let body =
        r#"{"c":"user:1001","d":"{\"event\":\"@user\",\"data\":{\"uid\":1001,\"msg\":\"Hello,World!\"}}"}"#;
    format!(
        "curl --request POST 'http://{publishing}/v1/mesh/publish' \
         --header 'Content-Type: application/json' --data-raw '{body}'"
    )
}

/// The lines for standard output.
pub fn text(standalone: &Standalone) -> String {
    let Standalone { clients, publishing, admin, path, .. } = standalone;
    let mut text = format!(
        "\nmessage center is up.\n\
         \n  devices connect to     ws://{clients}{path}\
         \n  back ends publish to   http://{publishing}/v1/mesh/publish\
         \n  health and metrics     http://{admin}/readyz and /metrics\n"
    );
    let Some(demo) = standalone.demo else {
        text.push_str("\nDevices log in with {\"op\":\"auth\",\"token\":\"...\"}; your business system checks the token.\n\n");
        return text;
    };
    text.push_str(&format!(
        "\nThis is demo mode: everything is on loopback, and the demo business system on {address}\n\
         accepts the tokens user-<uid>. Try it:\n\
         \n1. Connect any WebSocket client to ws://{clients}{path} and send\n\
         \n   {{\"op\":\"auth\",\"token\":\"user-1001\"}}\
         \n   {{\"op\":\"subscribe\",\"channel\":\"@user\"}}\n\
         \n2. Publish from another terminal:\n\
         \n   {curl}\n\
         \n3. Now with your own login: --auth-url http://127.0.0.1:8000/websocket_auth\n\n",
        address = demo.address,
        curl = curl(*publishing),
    ));
    if demo.wanted.port() != 0 && demo.address != demo.wanted {
        text.push_str(&format!(
            "Port {port} is taken, so the demo is on another one. If {port} is your business system, start with\n\
             --auth-url http://127.0.0.1:{port}/websocket_auth\n\n",
            port = demo.wanted.port(),
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_publish_is_the_one_of_the_manual() {
        assert_eq!(
            super::curl("127.0.0.1:6789".parse().unwrap()),
            r#"curl --request POST 'http://127.0.0.1:6789/v1/mesh/publish' --header 'Content-Type: application/json' --data-raw '{"c":"user:1001","d":"{\"event\":\"@user\",\"data\":{\"uid\":1001,\"msg\":\"Hello,World!\"}}"}'"#
        );
    }
}
