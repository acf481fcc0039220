//! The program accepts the configuration in the ConfigMaps.

use std::process::Command;

use harness::certificate::Authority;
use harness::jwt::Signer;
use harness::program::binary;

use crate::helm::matrix;

const MOUNTS: &str = "/etc/message-center";
const KEYS: &str = "[[keys]]\nname = \"shop\"\nhash = \
                    \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"\n";

#[test]
fn the_program_takes_every_configuration_that_the_chart_writes() {
    let Some(matrix) = matrix("configurations") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new(folder.path(), "authority");
    let pair = authority.issue("localhost");
    // Paths at which pods mount the Secrets.
    for mount in ["tls", "bus-tls", "keys", "jwt-keys"] {
        let mount = folder.path().join(mount);
        std::fs::create_dir(&mount).expect("a folder");
        std::fs::copy(&pair.cert, mount.join("tls.crt")).expect("a copy");
        std::fs::copy(&pair.key, mount.join("tls.key")).expect("a copy");
        std::fs::copy(&authority.file, mount.join("ca.crt")).expect("a copy");
        std::fs::write(mount.join("keys.toml"), KEYS).expect("a file");
        std::fs::write(mount.join("issuer.pem"), Signer::p256().pem()).expect("a file");
    }
    let mut checked = 0;
    for (file, objects) in matrix {
        for object in objects.iter().filter(|object| object["kind"] == "ConfigMap") {
            let Some(config) = object["data"]["config.toml"].as_str() else { continue };
            let part = object["metadata"]["labels"]["app.kubernetes.io/component"].as_str().expect("a label");
            let path = folder.path().join("config.toml");
            let config = config.replace(MOUNTS, &folder.path().to_string_lossy());
            std::fs::write(&path, config).expect("a file");
            let mut program = Command::new(binary());
            program.arg(part).arg("--config").arg(&path).arg("--check-config").env_clear();
            if file.contains("token") {
                program.env("MC_BUS__TOKEN", "secret");
            } else {
                program.env("MC_BUS__USER", "user").env("MC_BUS__PASSWORD", "secret");
            }
            let output = program.output().expect("it can be started");
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{file}, {part}: {error}");
            checked += 1;
        }
    }
    assert!(checked >= 50, "only {checked} configurations");
}
