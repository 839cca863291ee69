//! Tokens of an emulated Cloudflare account.

use keyturn::source::Target;
use keyturn::source::cloudflare_r2::Endpoints;
use serde_json::json;

use self::scene::{ACCOUNT, ADMIN, Scene};
use crate::behaviours::Issuer;

#[path = "../cloudflare_r2/scene.rs"]
#[allow(dead_code)] // another test program uses the rest of it
mod scene;

pub(crate) async fn start() -> impl Issuer {
    let scene = Scene::new().await;
    scene.propagate_after(0);
    // Any policies will do for a token that is only there.
    scene.cloudflare.make_token(ACCOUNT, "of somebody else", json!([])).unwrap();
    scene
}

impl Issuer for Scene {
    fn target(&self) -> Box<dyn Target> {
        Box::new(Scene::target(self))
    }

    fn unreachable(&self) -> Box<dyn Target> {
        let nowhere = "http://127.0.0.1:1".to_owned();
        let endpoints = Endpoints { api: nowhere.clone(), s3: nowhere };
        Box::new(self.target_at(endpoints, json!({}), ADMIN))
    }

    fn username(&self) -> String {
        unreachable!("Cloudflare names its tokens itself")
    }

    fn of_others(&self) -> String {
        let tokens = self.cloudflare.tokens(ACCOUNT);
        tokens.into_iter().find(|token| token.name == "of somebody else").unwrap().id
    }

    fn secrets(&self) -> Vec<String> {
        let tokens = self.cloudflare.tokens(ACCOUNT).into_iter();
        let theirs = tokens.flat_map(|token| [token.value.clone(), token.secret_access_key()]);
        theirs.chain([ADMIN.to_owned()]).collect()
    }
}
