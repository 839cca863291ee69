//! AWS as keyturn's tests need it: SSM Parameter Store with AWS's own validation rules, and with every fault that a
//! controller must survive, on demand. Alone, or with `--upstream` as a proxy that puts the faults and the call log
//! before another SSM.
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

/// Which request a fault hits.
pub type Rule = keyturn_emulator::Rule<Fault>;

/// A running emulator; it ends when dropped. What tests do to it they do to its [`World`].
pub struct Emulator {
    world: Arc<World>,
    server: Server,
}

impl Emulator {
    /// Starts on a free port of the loopback interface.
    pub async fn start() -> std::io::Result<Self> {
        Self::listen("127.0.0.1:0", None).await
    }

    /// Starts on an address, before an upstream if there is one.
    pub async fn listen(address: &str, upstream: Option<Upstream>) -> std::io::Result<Self> {
        let world = World::new(upstream);
        let server = Server::start(address, server::router(world.clone())).await?;
        Ok(Self { world, server })
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// What `AWS_ENDPOINT_URL_SSM` is set to.
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
