//! The Postgres target against real servers of every supported version: the same suite on each, with the privileges that
//! `docs/postgres.md` gives the administrator, and no more.
//!
//! Needs the folders of `KEYTURN_POSTGRES` (`eval "$(dev/world env)"`), `openssl`, and as root `setpriv`.

mod changes;
mod scene;
mod server;

/// Each behaviour as a test of its own on each version.
macro_rules! on_every_version {
    ($($file:ident::$behaviour:ident),* $(,)?) => {
        on_every_version!(@ postgres_15 15 $($file::$behaviour)*);
        on_every_version!(@ postgres_16 16 $($file::$behaviour)*);
        on_every_version!(@ postgres_17 17 $($file::$behaviour)*);
        on_every_version!(@ postgres_18 18 $($file::$behaviour)*);
    };
    (@ $module:ident $version:literal $($file:ident::$behaviour:ident)*) => {
        mod $module {
            $(
                #[tokio::test]
                #[ignore = "needs the Postgres servers of the world"]
                async fn $behaviour() {
                    let server = crate::server::Server::shared($version).await;
                    crate::$file::$behaviour(server).await;
                }
            )*
        }
    };
}

on_every_version! {
    changes::the_administrator_changes_a_roles_password_and_the_old_one_is_gone,
    changes::a_role_without_an_administrator_changes_its_own_password,
    changes::hostile_names_and_passwords_are_only_names_and_passwords,
    changes::of_two_roles_one_is_let_in_while_the_other_goes_on_and_then_is_shut_out,
    changes::an_older_rotation_and_another_secret_are_refused_by_the_fence,
    changes::many_installs_at_once_end_with_one_that_works,
}
