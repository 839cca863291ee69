//! An SSM's address, and stores and clients for it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak, mpsc};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_ssm::config::{Credentials, SharedCredentialsProvider};
use keyturn::parameter_store::aws::Stores;
use keyturn::parameter_store::budget::{Rate, Rates, SsmCalls};
use keyturn::parameter_store::ssm::CallLimits;
use keyturn::parameter_store::{NewVersion, ParameterStore};
use keyturn::secret_value::SecretValue;
use keyturn_aws_emulator::Emulator;

pub(crate) const REGION: &str = "us-east-1";
/// The staging path, below which the key of the stamps is.
pub(crate) const STAGING: &str = "/keyturn/test";
pub(crate) const SESSION_TOKEN: &str = "session-token-canary-5d1e";

/// Rates that never slow down a test.
pub(crate) const UNLIMITED: Rates = {
    let rate = Rate { per_second: 100_000.0, burst: 100_000 };
    Rates { put: rate, delete: rate, read: rate, describe: rate }
};

/// Limits for calls that must time out.
pub(crate) const HASTY: CallLimits = CallLimits {
    connect: Duration::from_millis(250),
    attempt: Duration::from_millis(500),
    total: Duration::from_millis(1500),
};

/// Limits for calls that must fail soon, but not because an answer is merely slow.
pub(crate) const BRIEF: CallLimits = CallLimits {
    connect: Duration::from_secs(1),
    attempt: Duration::from_secs(10),
    total: Duration::from_secs(2),
};

pub(crate) async fn emulator() -> Emulator {
    Emulator::start().await.expect("a port on the loopback interface is free")
}

/// An SSM, and a folder in it that belongs to one test.
pub(crate) struct Endpoint {
    url: String,
    folder: String,
}

impl Endpoint {
    pub(crate) fn new(url: &str, test: &str) -> Self {
        Self { url: url.to_owned(), folder: format!("/contract/{test}/") }
    }

    /// Returns the test's folder, with its closing slash.
    pub(crate) fn folder(&self) -> &str {
        &self.folder
    }

    pub(crate) fn path(&self, name: &str) -> String {
        format!("{}{name}", self.folder)
    }

    /// Returns a store without tight limits.
    pub(crate) fn store(&self) -> Arc<dyn ParameterStore> {
        self.store_with(CallLimits::default(), UNLIMITED, SsmCalls::default())
    }

    pub(crate) fn store_with(
        &self,
        limits: CallLimits,
        rates: Rates,
        calls: SsmCalls,
    ) -> Arc<dyn ParameterStore> {
        Stores::new(self.config(), STAGING, limits, rates, calls).region(REGION)
    }

    /// Returns a store of a separate installation.
    pub(crate) fn store_of(&self, staging: &str) -> Arc<dyn ParameterStore> {
        Stores::new(self.config(), staging, CallLimits::default(), UNLIMITED, SsmCalls::default())
            .region(REGION)
    }

    pub(crate) fn store_in(&self, region: &str) -> Arc<dyn ParameterStore> {
        Stores::new(self.config(), STAGING, CallLimits::default(), UNLIMITED, SsmCalls::default())
            .region(region)
    }

    /// Returns the SDK's client, for what the port does not offer.
    pub(crate) fn client(&self) -> aws_sdk_ssm::Client {
        aws_sdk_ssm::Client::new(&self.config())
    }

    pub(crate) fn config(&self) -> SdkConfig {
        let credentials =
            Credentials::new("AKIATEST", "not-checked", Some(SESSION_TOKEN.into()), None, "test");
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .endpoint_url(&self.url)
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .build()
    }
}

pub(crate) fn value(text: &str) -> SecretValue {
    SecretValue::new(text.to_owned())
}

/// Returns a write without a stamp and without a KMS key.
pub(crate) fn write<'a>(path: &'a str, value: &'a SecretValue, text: &str) -> NewVersion<'a> {
    NewVersion { path, value, text: text.to_owned(), stamp: None, kms_key_id: None }
}

/// A moto server that ends with the last test that uses it.
pub(crate) struct Moto {
    server: Child,
    url: String,
}

static SHARED: Mutex<Weak<Moto>> = Mutex::new(Weak::new());

impl Moto {
    pub(crate) async fn shared() -> Arc<Self> {
        tokio::task::spawn_blocking(|| {
            let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
            shared.upgrade().unwrap_or_else(|| {
                let moto = Arc::new(Self::start());
                *shared = Arc::downgrade(&moto);
                moto
            })
        })
        .await
        .expect("moto starts")
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    fn start() -> Self {
        let program = std::env::var("KEYTURN_MOTO_SERVER").unwrap_or_else(|_| "moto_server".to_owned());
        let mut server = Command::new(&program)
            .args(["-H", "127.0.0.1", "-p", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "{program} does not start ({error}). The contract is checked against moto: install it \
                     (pip install 'moto[server,ssm]') or name it in KEYTURN_MOTO_SERVER"
                )
            });
        let output = BufReader::new(server.stderr.take().expect("its stderr is piped"));
        let (send, url) = mpsc::channel();
        // Reads to the end, so that moto's access log never fills the pipe.
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some(url) = line.split("Running on ").nth(1) {
                    let _ = send.send(url.trim().to_owned());
                }
            }
        });
        let url = url.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| {
            let _ = server.kill();
            panic!("{program} ended, or did not say within a minute where it serves")
        });
        let moto = Self { server, url };
        moto.warm_up();
        moto
    }

    /// Sends a first request: moto loads a service at its first request, which takes longer on a busy machine
    /// than a call of ours may.
    fn warm_up(&self) {
        let address = self.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).expect("moto serves where it says");
        stream.set_read_timeout(Some(Duration::from_secs(120))).expect("two minutes are a valid timeout");
        let request = "POST / HTTP/1.1\r\nhost: moto\r\nconnection: close\r\ncontent-length: 2\r\n\
                       content-type: application/x-amz-json-1.1\r\nx-amz-target: AmazonSSM.DescribeParameters\r\n\
                       authorization: AWS4-HMAC-SHA256 Credential=AKIATEST/20260101/us-east-1/ssm/aws4_request, \
                       SignedHeaders=host, Signature=0\r\n\r\n{}";
        stream.write_all(request.as_bytes()).expect("moto takes a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("moto answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "moto is not the SSM that the suite expects: {answer}");
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
