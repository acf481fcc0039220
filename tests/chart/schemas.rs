//! Kubernetes' own schemas, 1.30 to 1.37, over what both helms render of every values file.

use std::path::Path;
use std::process::Command;

use harness::tools;

use crate::helm::{HELMS, run, values_files};

const VERSIONS: &str = "1.30,1.31,1.32,1.33,1.34,1.35,1.36,1.37";

#[test]
fn every_object_is_one_that_kubernetes_knows() {
    let Some(python) = tools::find("MC_TEST_PYTHON", "schemas of Kubernetes") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let mut files = Vec::new();
    for variable in HELMS {
        let Some(helm) = tools::find(variable, "schemas of Kubernetes") else { return };
        for values in values_files() {
            let output = run(&helm, &["template", "shop"], &["-f", &values.to_string_lossy()]);
            assert!(output.status.success(), "{}: {output:?}", values.display());
            let name = values.file_name().expect("it has one").to_string_lossy();
            let file = folder.path().join(format!("{variable}-{name}"));
            std::fs::write(&file, output.stdout).expect("a file");
            files.push(file);
        }
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("chart/validate.py");
    let checked = Command::new(python).arg(script).arg(VERSIONS).args(&files).output().expect("it starts");
    let text = String::from_utf8_lossy(&checked.stdout);
    let checks = text.trim().strip_suffix(" checks").and_then(|count| count.parse::<u32>().ok());
    assert!(
        checks.is_some_and(|checks| checks > 1000),
        "{text}\n{}",
        String::from_utf8_lossy(&checked.stderr)
    );
}
