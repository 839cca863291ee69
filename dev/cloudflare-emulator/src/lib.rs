//! Cloudflare as keyturn's tests need it: account-owned API tokens as Cloudflare's API creates, lists and deletes them,
//! and an S3 endpoint of R2 that really checks Signature Version 4. The S3 endpoint learns of a new or deleted token
//! only after a delay, as in reality, and every fault that a controller must survive is available on demand.
//!
//! It is a test tool: everybody who reaches it may administer it.

mod faults;
mod s3;
mod server;
mod sigv4;
mod tokens;
mod world;

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use keyturn_emulator::Server;

pub use faults::Fault;
pub use world::{Account, Bucket, Call, Settings, Token, World};

/// A rule that selects the requests that a fault hits.
pub type Rule = keyturn_emulator::Rule<Fault>;

/// A running emulator; dropping it ends it. Tests control it through its [`World`].
pub struct Emulator {
    world: Arc<World>,
    server: Server,
}

impl Emulator {
    /// Starts on a free port of the loopback interface, in memory only.
    pub async fn start() -> std::io::Result<Self> {
        Self::listen("127.0.0.1:0", None).await
    }

    /// Starts on an address, with the content of the file if there is one.
    pub async fn listen(address: &str, state: Option<PathBuf>) -> std::io::Result<Self> {
        let world = Arc::new(World::open(state)?);
        let server = Server::start(address, server::router(world.clone())).await?;
        Ok(Self { world, server })
    }

    /// Returns the address on which it listens, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Returns the replacement for `https://api.cloudflare.com/client/v4`.
    pub fn api_url(&self) -> String {
        format!("http://{}/client/v4", self.address())
    }

    /// Returns the replacement for `https://{account}{jurisdiction}.r2.cloudflarestorage.com`.
    pub fn s3_endpoint(&self) -> String {
        format!("http://{}/s3/{{account}}{{jurisdiction}}", self.address())
    }
}

impl Deref for Emulator {
    type Target = Arc<World>;

    fn deref(&self) -> &Arc<World> {
        &self.world
    }
}
