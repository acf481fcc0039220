//! Erases a user by the commands of the manual.

use harness::alone::Alone;
use harness::device::{Device, Received};
use harness::tools;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::keys::{KeysFile, Made};

const PAGE: &str = include_str!("../../deploy/docs/erasing.md");

/// The curl commands of the page, with the keys and the address of this test.
fn commands(alone: &Alone, keys: &[(&str, &Made)]) -> Vec<String> {
    let address = alone.publisher_address().to_string();
    let blocks = PAGE.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    let fill = |block: &str| {
        let block = block.replace("127.0.0.1:6789", &address);
        keys.iter().fold(block, |block, (name, key)| {
            block.replace(&format!("{name}:mck_…"), &format!("{name}:{}", key.secret))
        })
    };
    blocks.filter(|block| block.trim_start().starts_with("curl ")).map(fill).collect()
}

/// Runs a command in a shell; returns the JSON answer.
async fn answer(curl: &str, command: &str) -> Value {
    let command = format!("{} --silent --noproxy '*'", command.trim().replacen("curl", curl, 1));
    let output = Command::new("sh").arg("-c").arg(&command).kill_on_drop(true).output();
    let output = harness::wait::soon("curl ends", output).await.expect("there is a shell");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[tokio::test]
async fn nothing_of_a_user_is_left_behind_the_commands_of_the_manual() {
    let Some(curl) = tools::find("MC_TEST_CURL", "a user is erased by the manual") else { return };
    let keys = KeysFile::new();
    let shop = keys.make_for("shop", "publish,read,disconnect").await;
    let eraser = keys.make_for("eraser", "admin").await;
    keys.write(&[&shop, &eraser]);
    let alone = Alone::plan().set("publisher_api.keys_file", keys.path().display()).start().await;
    let publisher = alone.publisher();
    let publish = async |user: u32, text: &str| {
        let call = json!({ "to": { "users": [user] }, "raw": text }).to_string();
        let request = publisher.request(Method::POST, "/v1/publish").basic_auth("shop", Some(&shop.secret));
        let request = request.header("content-type", "application/json").body(call);
        assert_eq!(publisher.send(request).await.status, 200);
    };
    let messages = async |channel: &str| {
        let path = format!("/v1/channels/{channel}/messages");
        let request = publisher.request(Method::GET, &path).basic_auth("shop", Some(&shop.secret));
        let answer = publisher.send(request).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.text
    };
    let (mut device, recovery) = Device::back(alone.edge(), "user-1001", "").await;
    for text in ["private one", "private two"] {
        publish(1001, text).await;
    }
    device.expect_messages(["private one", "private two"]).await;
    publish(2, "of another").await;
    assert!(messages("user:1001").await.contains("private one"));

    let commands = commands(&alone, &[("shop", &shop), ("eraser", &eraser)]);
    let curl = curl.display().to_string();
    let [disconnect, erase] = &commands[..] else { panic!("not two commands: {commands:?}") };
    let told = answer(&curl, disconnect).await;
    assert_eq!((&told["denied"], &told["complete"]), (&json!(true), &json!(true)), "{told}");
    device.expect_close(4410).await;
    crate::bans::expect_refused_at(alone.edge(), "user-1001", "account deleted").await;
    let told = answer(&curl, erase).await;
    assert_eq!((&told["channel"], &told["erased"]), (&json!("user:1001"), &json!(2)), "{told}");
    assert!(!messages("user:1001").await.contains("private"));
    assert!(messages("user:2").await.contains("of another"));

    // A later device of the same user, with an id from before, receives nothing of the erased history.
    let path = "/v1/users/1001/disconnect";
    let request = publisher.request(Method::POST, path).basic_auth("shop", Some(&shop.secret));
    let request = request.header("content-type", "application/json").body(r#"{"deny_for":"0s"}"#);
    assert_eq!(publisher.send(request).await.status, 200);
    harness::wait::eventually("the user may come again", async || {
        let mut device = Device::connect(alone.edge()).await;
        device.send(&json!({ "op": "auth", "token": "user-1001" }).to_string()).await;
        device.next().await == Received::Text(r#"{"result":true}"#.into())
    })
    .await;
    let (mut device, again) = Device::back(alone.edge(), "user-1001", &recovery.id).await;
    assert!(!again.recovered, "{again:?}");
    device.expect_nothing().await;
    device.close().await;
    alone.end().await;
}
