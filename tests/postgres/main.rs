//! Tests the Postgres target with real servers of every supported version: the same tests for each, with exactly the
//! privileges that `docs/postgres.md` gives the administrator.
//!
//! Needs the folders of `KEYTURN_POSTGRES` (`eval "$(dev/world env)"`), `openssl`, `sshd`, `pgbouncer`, and as root
//! `setpriv`.

mod bootstraps;
mod changes;
mod failures;
mod logins;
mod poolers;
mod proxy;
mod scene;
mod server;
#[path = "../ssh/sshd.rs"]
#[allow(dead_code)] // another test program uses the rest of it
mod sshd;
mod tunnels;

/// Creates a test of each behaviour for each version.
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
    changes::a_role_without_an_administrator_sees_and_ends_its_own_sessions,
    changes::hostile_names_and_passwords_are_only_names_and_passwords,
    changes::of_two_roles_one_is_let_in_while_the_other_goes_on_and_then_is_shut_out,
    changes::an_older_rotation_and_another_secret_are_refused_by_the_fence,
    changes::many_installs_at_once_end_with_one_that_works,
    changes::without_a_fence_installs_at_once_wait_for_each_other,
    changes::a_pair_that_cannot_take_turns_is_refused_and_objects_of_one_alone_are_reported,
    logins::nothing_but_scram_is_gone_along_with_and_nothing_of_the_password_is_sent,
    logins::a_refusal_says_why_as_far_as_the_administrator_can_see,
    logins::tls_reaches_only_a_server_whose_name_and_authority_are_right,
    logins::a_server_without_tls_or_without_postgres_is_named,
    logins::probes_are_run_and_change_nothing,
    logins::nobody_is_probed_who_reaches_beyond_the_database,
    logins::a_replica_is_not_believed,
    failures::an_answer_that_is_lost_at_the_commit_leaves_the_outcome_unknown_and_is_made_good,
    failures::a_role_that_another_transaction_holds_is_waited_for_and_then_left,
    failures::what_the_administrator_lacks_is_named_and_granting_it_helps,
    failures::the_name_of_an_administrator_from_a_secret_is_in_no_message,
    failures::superusers_are_touched_only_where_that_is_granted_and_never_shut_out,
    failures::a_fence_that_somebody_else_made_is_not_touched_and_without_one_it_works_all_the_same,
    failures::functions_that_the_owner_of_the_database_planted_are_not_run_by_the_administrator,
    failures::no_password_is_in_the_servers_log_or_statistics_even_where_statements_fail,
    bootstraps::a_role_in_use_becomes_an_owner_and_a_pair_and_goes_on_to_work,
    bootstraps::the_bootstrap_superuser_of_the_official_image_hands_its_objects_over,
    bootstraps::a_bootstrap_that_the_administrator_may_not_do_changes_nothing,
    tunnels::a_server_behind_a_docker_host_is_reached_through_one_ssh_connection,
    poolers::clients_of_a_pooler_never_fail_while_two_roles_take_turns,
}
