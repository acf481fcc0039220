//! The first five minutes: the lines that a newcomer types and copies, through the real program.

use std::net::SocketAddr;

use harness::device::{Device, PATH};
use harness::program::{Launch, Program};
use harness::raw;
use serde_json::Value;
use tokio::net::TcpListener;

fn demo() -> Launch {
    Launch::bare()
        .with_text_log()
        .set("edge.listen", "127.0.0.1:0")
        .set("edge.admin", "127.0.0.1:0")
        .set("publisher_api.listen", "127.0.0.1:0")
        .set("demo.listen", "127.0.0.1:0")
}

/// The address after `prefix` in the output of the program.
fn printed_address(program: &Program, prefix: &str) -> SocketAddr {
    let text = program.stdout();
    let rest = text.split_once(prefix).unwrap_or_else(|| panic!("{prefix} is not printed: {text}")).1;
    rest.split(['/', ' ', '\n'])
        .next()
        .and_then(|address| address.parse().ok())
        .expect("an address is printed")
}

#[tokio::test]
async fn a_newcomer_copies_the_printed_lines_and_the_device_receives_the_text_of_d() {
    let mut program = demo().start();
    program.printed("message center is up").await;
    let curl = program.printed("curl ").await;
    let frames: Vec<String> =
        [r#"{"op":"auth","token":"user-1001"}"#, r#"{"op":"subscribe","channel":"@user"}"#]
            .into_iter()
            .map(str::to_owned)
            .collect();
    assert!(
        program.stdout().contains("--auth-url http://127.0.0.1:8000/websocket_auth"),
        "{}",
        program.stdout()
    );
    assert!(program.stdout().contains("loopback"), "demo mode says so: {}", program.stdout());

    let mut device = Device::connect(printed_address(&program, "ws://")).await;
    for frame in &frames {
        program.printed(frame).await;
        device.send(frame).await;
        device.expect_text(r#"{"result":true}"#).await;
    }
    assert_eq!(publish(&curl).await, r#"{"E":null,"r":{"s":1,"f":0}}"#);
    device.expect_text(r#"{"event":"@user","data":{"uid":1001,"msg":"Hello,World!"}}"#).await;
    device.expect_nothing().await;

    let admin = printed_address(&program, "health and metrics     http://");
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(raw::get(admin, path).await.status, 200, "{path}");
    }
    device.close().await;
    program.signal("TERM").await;
    program.expect_success().await;
}

/// Runs the printed line in a shell if there is curl, else sends the same request; returns the body of the
/// answer.
async fn publish(curl: &str) -> String {
    let has_curl = tokio::process::Command::new("curl").arg("--version").output().await;
    if has_curl.is_ok_and(|output| output.status.success()) {
        let line = format!("{} --silent --noproxy '*'", curl.trim());
        let output =
            tokio::process::Command::new("sh").arg("-c").arg(line).output().await.expect("there is a shell");
        assert!(output.status.success(), "{output:?}");
        return String::from_utf8(output.stdout).expect("the answer is text");
    }
    let address =
        curl.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("it names an address");
    let body =
        curl.split("--data-raw '").nth(1).and_then(|rest| rest.strip_suffix('\'')).expect("it names a body");
    let request = format!(
        "POST /v1/mesh/publish HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    raw::exchange(address.parse().expect("it is an address"), request.as_bytes()).await.body
}

#[tokio::test]
async fn the_printed_line_is_the_one_of_the_manual() {
    let mut program = demo().start();
    let curl = program.printed("curl ").await;
    let manual = include_str!("../../README.md");
    let body = curl.split("--data-raw ").nth(1).expect("it has a body");
    assert!(manual.contains(body), "the README shows another body than {body}");
    let inner = body.trim().trim_matches('\'');
    let publish: Value = serde_json::from_str(inner).expect("the body is JSON");
    assert_eq!(publish["c"], "user:1001");
    program.signal("INT").await;
    program.expect_success().await;
}

#[tokio::test]
async fn where_the_port_of_the_demo_is_taken_it_says_what_to_do_with_your_own_business_system() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let address = taken.local_addr().expect("it is bound");
    let mut program = demo().set("demo.listen", address).start();
    let line = program.printed("is your business system").await;
    assert!(line.contains(&address.port().to_string()), "{line}");
    assert!(
        program.stdout().contains(&format!("--auth-url http://127.0.0.1:{}/websocket_auth", address.port()))
    );
    let edge = printed_address(&program, "ws://");
    Device::online(edge, "user-1").await.close().await;
    program.signal("TERM").await;
    program.expect_success().await;
}

#[tokio::test]
async fn with_a_login_of_your_own_the_demo_is_off() {
    let business = harness::business::Business::start().await;
    let mut program = demo().argument("--auth-url").argument(&business.url()).start();
    program.printed("message center is up").await;
    assert!(!program.stdout().contains("demo"), "{}", program.stdout());
    let edge = printed_address(&program, "ws://");
    assert!(program.stdout().contains(&format!("ws://{edge}{PATH}")));
    Device::online(edge, "user-1").await.close().await;
    assert_eq!(business.calls_for("user-1"), 1);
    program.signal("TERM").await;
    program.expect_success().await;
    business.stop().await;
}
