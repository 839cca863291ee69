//! AWS as keyturn's tests need it: SSM Parameter Store with AWS's own validation rules and, on demand, every fault
//! that a controller must survive. It works alone, or with `--upstream` as a proxy that adds the faults and the
//! call log to another SSM.
//!
//! It is a test tool: it checks no signature, keeps everything in memory, and never shows a value in its log.

mod calls;
mod cloudtrail;
mod error;
mod faults;
mod quota;
mod server;
mod ssm;
mod upstream;
mod wire;
mod world;

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

use keyturn_emulator::Server;

pub use calls::Call;
pub use error::AwsError;
pub use faults::Fault;
pub use quota::Quota;
pub use ssm::Settings;
pub use upstream::{NotHttp, Upstream};
pub use world::World;

/// A rule that selects the requests that a fault hits.
pub type Rule = keyturn_emulator::Rule<Fault>;

/// A running emulator; dropping it ends it. Tests control it through its [`World`].
pub struct Emulator {
    world: Arc<World>,
    server: Server,
}

impl Emulator {
    /// Starts on a free port of the loopback interface.
    pub async fn start() -> std::io::Result<Self> {
        Self::listen("127.0.0.1:0", None).await
    }

    /// Starts on an address, as a proxy if there is an upstream.
    pub async fn listen(address: &str, upstream: Option<Upstream>) -> std::io::Result<Self> {
        let world = World::new(upstream);
        let server = Server::start(address, server::router(world.clone())).await?;
        Ok(Self { world, server })
    }

    /// Returns the address on which it listens, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Returns the value for `AWS_ENDPOINT_URL_SSM`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }
}

impl Deref for Emulator {
    type Target = Arc<World>;

    fn deref(&self) -> &Arc<World> {
        &self.world
    }
}
