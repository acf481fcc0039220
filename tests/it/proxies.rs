//! The sample configurations for reverse proxies, in the real proxies: TLS outside, message center behind.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use harness::certificate::Authority;
use harness::cluster::Cluster;
use harness::wait::{eventually, soon};
use harness::{ports, tools};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/samples");

/// A proxy to set up: its folder and its port.
struct Site {
    folder: TempDir,
    authority: Authority,
    devices: u16,
    publishing: u16,
}

impl Site {
    fn new() -> Self {
        let folder = TempDir::new().expect("there is room for a folder");
        let authority = Authority::new(folder.path(), "authority");
        let [devices, publishing] = ports::lasting().map(|address| address.port());
        Self { folder, authority, devices, publishing }
    }

    /// Writes a sample configuration with this site's ports and files in place of the sample's.
    fn fill_in(&self, sample: &str, ports: [(&str, String); 2], cluster: &Cluster) -> PathBuf {
        let text = std::fs::read_to_string(Path::new(SAMPLES).join(sample)).expect("there is a sample");
        let certificate = self.authority.issue("proxy");
        let [devices, publishing] = ports;
        let changes = [
            devices,
            publishing,
            ("127.0.0.1:6790", cluster.edge(0).to_string()),
            ("127.0.0.1:6789", cluster.publisher_address(0).to_string()),
            ("/etc/message-center/tls.crt", certificate.cert.display().to_string()),
            ("/etc/message-center/tls.key", certificate.key.display().to_string()),
            ("message-center.example.com", "localhost".to_owned()),
        ];
        let text = changes.into_iter().fold(text, |text, (example, ours)| {
            assert!(text.contains(example), "{sample} does not hold {example}");
            text.replace(example, &ours)
        });
        let file = self.folder.path().join(sample);
        std::fs::write(&file, text).expect("there is room for a file");
        file
    }

    /// Runs a device and a back end through the proxy, then ends the proxy.
    async fn tour(self, python: PathBuf, mut proxy: Child, log: &Path) {
        for port in [self.devices, self.publishing] {
            eventually("the proxy listens", async || {
                let ended = proxy.try_wait().expect("it is our child");
                let said = || std::fs::read_to_string(log).unwrap_or_default();
                assert!(ended.is_none(), "the proxy ended: {}", said());
                TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await.is_ok()
            })
            .await;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/through_proxy.py");
        let client = Command::new(python)
            .arg(script)
            .args([self.devices, self.publishing].map(|port| format!("localhost:{port}")))
            .arg(&self.authority.file)
            .args(["user-1001", "1001"])
            .kill_on_drop(true)
            .status();
        let status = soon("the Python client ends", client).await.expect("Python can be started");
        let said = std::fs::read_to_string(log).unwrap_or_default();
        assert!(status.success(), "{status}; the proxy says: {said}");
        soon("the proxy ends", proxy.kill()).await.expect("it can be killed");
    }
}

async fn cluster() -> Cluster {
    Cluster::plan().publisher(|config| config.allowed_hosts = vec!["localhost".to_owned()]).start().await
}

fn start(program: PathBuf, log: &Path, home: &Path, arguments: &[&str]) -> Child {
    let log = std::fs::File::create(log).expect("there is room for a log");
    Command::new(program)
        .args(arguments)
        .env("HOME", home)
        .env("XDG_DATA_HOME", home)
        .env("XDG_CONFIG_HOME", home)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log has two ends"))
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .expect("the proxy can be started")
}

#[tokio::test]
async fn nginx_with_our_sample_carries_devices_and_publishers() {
    let test = "devices and publishers behind nginx";
    let (Some(nginx), Some(python)) =
        (tools::find("MC_TEST_NGINX", test), tools::find("MC_TEST_PYTHON", test))
    else {
        return;
    };
    let (site, cluster) = (Site::new(), cluster().await);
    let ports = [
        ("listen 443 ", format!("listen 127.0.0.1:{} ", site.devices)),
        ("listen 8443 ", format!("listen 127.0.0.1:{} ", site.publishing)),
    ];
    let sample = site.fill_in("nginx.conf", ports, &cluster);
    let folder = site.folder.path().to_owned();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind};\n", folder.display()))
        .concat();
    let frame = format!(
        "daemon off;\nmaster_process off;\npid {0}/pid;\nerror_log stderr notice;\nevents {{}}\n\
         http {{\naccess_log off;\n{temporary}include {1};\n}}\n",
        folder.display(),
        sample.display(),
    );
    let (config, log) = (folder.join("frame.conf"), folder.join("log"));
    std::fs::write(&config, frame).expect("there is room for a file");
    let arguments =
        ["-p", &folder.display().to_string(), "-e", "stderr", "-c", &config.display().to_string()];
    let proxy = start(nginx, &log, &folder, &arguments);
    site.tour(python, proxy, &log).await;
    cluster.end().await;
}

#[tokio::test]
async fn caddy_with_our_sample_carries_devices_and_publishers() {
    let test = "devices and publishers behind Caddy";
    let (Some(caddy), Some(python)) =
        (tools::find("MC_TEST_CADDY", test), tools::find("MC_TEST_PYTHON", test))
    else {
        return;
    };
    let (site, cluster) = (Site::new(), cluster().await);
    let ports = [
        ("message-center.example.com:443", format!("message-center.example.com:{}", site.devices)),
        ("message-center.example.com:8443", format!("message-center.example.com:{}", site.publishing)),
    ];
    let sample = site.fill_in("Caddyfile", ports, &cluster);
    let text = std::fs::read_to_string(&sample).expect("it was written");
    // Turns off the admin port and the redirect from port 80: both are Caddy's defaults, and the test owns
    // only its ports.
    let text = format!("{{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n}}\n{text}");
    std::fs::write(&sample, text).expect("there is room for a file");
    let (folder, log) = (site.folder.path().to_owned(), site.folder.path().join("log"));
    let arguments = ["run", "--adapter", "caddyfile", "--config", &sample.display().to_string()];
    let proxy = start(caddy, &log, &folder, &arguments);
    site.tour(python, proxy, &log).await;
    cluster.end().await;
}
