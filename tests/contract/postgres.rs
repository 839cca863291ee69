//! One of two roles that take turns at a real Postgres server, with the administrator that `docs/postgres.md` describes. A
//! single role is never retired.

use std::sync::Arc;

use keyturn::source::Target;
use keyturn::source::postgres::{Direct, Postgres};

use self::scene::Scene;
use crate::behaviours::Issuer;
use crate::server::Server;

#[path = "../postgres/scene.rs"]
#[allow(dead_code)] // another test program uses the rest of it
mod scene;

const VERSION: u32 = 18;

pub(crate) async fn start() -> impl Issuer {
    let scene = Scene::new(Server::shared(VERSION).await).await;
    scene.pair().await;
    scene
}

impl Issuer for Scene {
    fn target(&self) -> Box<dyn Target> {
        Box::new(Scene::target(self, &self.alternating()))
    }

    fn unreachable(&self) -> Box<dyn Target> {
        let nowhere = Arc::new(Direct { host: "127.0.0.1".to_owned(), port: 1 });
        let spec = self.alternating();
        let owner = "world/ns/secret".to_owned();
        Box::new(Postgres::new(&spec, nowhere, Some(self.administrator()), owner, false).unwrap())
    }

    fn username(&self) -> String {
        self.role("a")
    }

    fn of_others(&self) -> String {
        "postgres".to_owned()
    }

    fn secrets(&self) -> Vec<String> {
        vec![self.admin.password.expose().to_owned()]
    }
}
