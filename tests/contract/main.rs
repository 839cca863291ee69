//! The contract of every issuer: what keyturn relies on at each system that accepts or makes logins. One suite runs at
//! each of them; a new source adds a module that starts its server, and a line below.
//!
//! Needs the folders of `KEYTURN_POSTGRES` (`eval "$(dev/world env)"`).

mod behaviours;
mod cloudflare_r2;
mod postgres;
#[path = "../postgres/server.rs"]
#[allow(dead_code)] // another test program uses the rest of it
mod server;

/// Creates a test of each behaviour for each server.
macro_rules! every_issuer {
    (servers: $($module:ident::$server:ident)+; behaviours: $behaviours:tt;) => {
        $(every_issuer!(@ $module $server $behaviours);)+
    };
    (@ $module:ident $server:ident [$($behaviour:ident)+]) => {
        mod $server {
            $(
                #[tokio::test]
                #[ignore = "needs the servers of the world"]
                async fn $behaviour() {
                    crate::behaviours::$behaviour(&crate::$module::start().await).await;
                }
            )+
        }
    };
}

every_issuer! {
    servers: postgres::a_postgres_role cloudflare_r2::a_cloudflare_r2_token;
    behaviours: [
        a_login_works_from_its_rotation_until_it_is_retired
        a_wrong_password_is_refused_which_is_no_failure
        a_step_that_is_repeated_changes_nothing_more
        a_late_request_of_an_older_rotation_takes_nothing_away
        what_belongs_to_others_is_not_retired
        a_server_that_is_away_neither_accepts_nor_refuses
        no_message_holds_a_secret
    ];
}
