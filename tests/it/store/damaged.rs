//! Unusable data folders: the process says what is wrong, and changes nothing.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use harness::program::{Finished, Launch};
use serde_json::json;
use tempfile::TempDir;

use super::wire::Wire;
use super::{address, bus, make, segments};

/// A data folder with some messages, whose bus was killed.
async fn killed(messages: u64) -> TempDir {
    let folder = TempDir::new().expect("there is room");
    let mut program = bus(folder.path(), "strict").start();
    let mut wire = Wire::connect(address(&mut program).await).await;
    make(&mut wire, &json!({})).await;
    for number in 1..=messages {
        let stored = wire.store("s.a", &number.to_string(), &format!("message {number}")).await;
        assert_eq!(stored["seq"], number);
    }
    program.kill().await;
    folder
}

async fn refused(folder: &Path) -> String {
    let Finished { code, stderr, stdout } = bus(folder, "strict").with_text_log().run().await;
    assert!(code != 0, "it must not start");
    assert!(!stderr.contains("panicked"), "{stderr}");
    format!("{stdout}{stderr}")
}

#[tokio::test]
async fn a_torn_end_is_cut_off_with_a_warning_and_its_sequences_are_not_used_again() {
    let folder = killed(10).await;
    let newest = segments(folder.path()).pop().expect("there is a segment");
    let file = std::fs::OpenOptions::new().write(true).open(&newest).expect("it is ours");
    // As if the machine had gone down in the middle of the last write.
    let length = file.metadata().expect("it is there").len();
    file.set_len(length - 5).expect("it is ours");
    let mut program = bus(folder.path(), "strict").start();
    let warning = program.logged("the end of a log was cut off").await;
    assert_eq!(warning["level"], "WARN");
    assert!(warning["file"].as_str().is_some_and(|file| file.ends_with(".log")), "{warning}");
    let mut wire = Wire::connect(address(&mut program).await).await;
    let all = wire.all().await;
    assert_eq!(all.keys().copied().collect::<Vec<_>>(), (1..10).collect::<Vec<_>>());
    let next = wire.store("s.a", "next", "next").await;
    assert!(next["seq"].as_u64().is_some_and(|seq| seq > 10), "{next}");
    program.end().await;
}

#[tokio::test]
async fn damage_in_the_middle_is_named_and_the_bus_does_not_start() {
    let folder = killed(200).await;
    let newest = segments(folder.path()).pop().expect("there is a segment");
    let file = std::fs::OpenOptions::new().write(true).open(&newest).expect("it is ours");
    let middle = file.metadata().expect("it is there").len() / 2;
    file.write_all_at(b"rotten", middle).expect("it is ours");
    let before = std::fs::read(&newest).expect("it is ours");
    let said = refused(folder.path()).await;
    for word in [".log is damaged at byte", "backup", "move the folder of this stream away"] {
        assert!(said.contains(word), "{word:?} is not in\n{said}");
    }
    assert_eq!(std::fs::read(&newest).expect("it is ours"), before, "nothing was changed");
    // As the error text says: without the stream's folder the bus starts, and the stream is gone.
    std::fs::rename(folder.path().join("streams/S"), folder.path().join("away")).expect("it is ours");
    let mut program = bus(folder.path(), "strict").start();
    let mut wire = Wire::connect(address(&mut program).await).await;
    assert_eq!(wire.ask("STREAM.INFO.S", "").await["error"]["err_code"], 10059);
    program.end().await;
}

#[tokio::test]
async fn a_second_process_on_the_same_folder_is_refused_and_the_first_goes_on() {
    let folder = TempDir::new().expect("there is room");
    let mut program = bus(folder.path(), "strict").start();
    let at = address(&mut program).await;
    let said = refused(folder.path()).await;
    for word in ["another process (pid ", "has the data folder", "--data"] {
        assert!(said.contains(word), "{word:?} is not in\n{said}");
    }
    let mut wire = Wire::connect(at).await;
    make(&mut wire, &json!({})).await;
    assert_eq!(wire.store("s.a", "1", "one").await["seq"], 1);
    program.end().await;
    // The lock ends with its process.
    let mut next = bus(folder.path(), "strict").start();
    address(&mut next).await;
    next.end().await;
}

#[tokio::test]
async fn a_folder_that_can_not_be_written_or_is_something_else_is_refused_at_the_start() {
    let place = TempDir::new().expect("there is room");
    let file = place.path().join("letter.txt");
    std::fs::write(&file, "mine").expect("there is room");
    // Not even root can make a folder there.
    for folder in [Path::new("/proc/no-such-folder"), &file.join("data")] {
        let said = refused(folder).await;
        for word in ["can't be used", "give this user the right to write there", "bus.store.sync"] {
            assert!(said.contains(word), "{word:?} is not in\n{said}");
        }
    }
    let said = refused(place.path()).await;
    assert!(said.contains("is not empty and no data folder"), "{said}");
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "mine");
}

#[tokio::test]
async fn messages_are_kept_on_the_disk_whatever_else_is_said_of_the_bus() {
    let place = TempDir::new().expect("there is room");
    // Starts the program in that folder, without naming a data folder.
    let go = format!("cd {} && exec \"$0\" \"$@\"", place.path().display());
    let launch = || {
        let launch = Launch::of("bus").set("bus.listen", "127.0.0.1:0").set("bus.admin", "127.0.0.1:0");
        launch.set("bus.store.sync", "strict").under(Path::new("sh"), &["-c", &go])
    };
    for round in 1..=2 {
        let mut program = launch().start();
        let mut wire = Wire::connect(address(&mut program).await).await;
        make(&mut wire, &json!({})).await;
        assert_eq!(wire.store("s.a", &round.to_string(), "kept").await["seq"], round);
        program.kill().await;
    }
    assert_eq!(segments(&place.path().join("message-center-data")).len(), 1);
}

#[tokio::test]
async fn commands_of_operators_open_the_folder_that_no_process_has_and_make_none() {
    let place = TempDir::new().expect("there is room");
    let data = place.path().join("data");
    let operator = |arguments: &[&str]| {
        let launch = Launch::of("history").variable("MC_BUS__STORE__SYNC", "strict");
        let launch = arguments.iter().fold(launch, |launch, argument| launch.argument(argument));
        launch.argument("--data").argument(&data.display().to_string()).run()
    };
    let none = operator(&["status"]).await;
    assert!(none.code != 0 && none.stderr.contains("there is no data of an embedded bus in"), "{none:?}");
    assert!(!data.exists());

    let mut launch = Launch::of("run").argument("--data").argument(&data.display().to_string());
    for key in ["edge.listen", "edge.admin", "publisher_api.listen", "demo.listen"] {
        launch = launch.set(key, "127.0.0.1:0");
    }
    let program = launch.variable("MC_BUS__STORE__SYNC", "strict").start();
    program.printed("message center is up").await;
    let taken = operator(&["status"]).await;
    assert!(taken.code != 0 && taken.stderr.contains("another process (pid "), "{taken:?}");
    program.end().await;

    let before = operator(&["status"]).await;
    assert!(before.code == 0 && before.stdout.contains("MC_LOG_0"), "{before:?}");
    let raised = operator(&["new-generation", "--yes"]).await;
    assert_eq!(raised.code, 0, "{raised:?}");
    let after = operator(&["status"]).await;
    assert_ne!(before.stdout, after.stdout, "another generation is kept");
}
