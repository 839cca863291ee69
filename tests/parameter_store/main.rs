//! Tests what keyturn needs of Parameter Store through its own adapter with two SSMs: the emulator in
//! `dev/aws-emulator` and moto. Tests that only the emulator supports, above all those of faults, are in
//! separate modules.
//!
//! moto is started from `KEYTURN_MOTO_SERVER`, or `moto_server` on the PATH; without it these tests fail.

mod behaviours;
mod endpoint;
mod faults;
mod inventory;
mod leaks;
mod rules;

/// Creates a test of each behaviour for each SSM.
macro_rules! contract {
    ($($behaviour:ident),* $(,)?) => {
        mod emulator {
            $(
                #[tokio::test]
                async fn $behaviour() {
                    let emulator = super::endpoint::emulator().await;
                    let endpoint = super::endpoint::Endpoint::new(&emulator.url(), stringify!($behaviour));
                    super::behaviours::$behaviour(&endpoint).await;
                }
            )*
        }

        mod moto {
            $(
                #[tokio::test]
                async fn $behaviour() {
                    let moto = super::endpoint::Moto::shared().await;
                    let endpoint = super::endpoint::Endpoint::new(moto.url(), stringify!($behaviour));
                    super::behaviours::$behaviour(&endpoint).await;
                }
            )*
        }
    };
}

contract! {
    a_path_is_created_once,
    of_many_creators_one_wins,
    every_overwrite_is_a_version_with_its_own_description,
    an_identical_value_is_a_version_too,
    old_versions_can_be_read_back,
    what_is_not_there_is_no_error,
    a_folder_is_read_with_all_that_lies_below_it_and_nothing_beside_it,
    a_parameter_that_is_created_again_counts_from_1,
    the_history_holds_the_latest_100_versions,
    values_come_back_byte_by_byte,
    a_description_of_the_full_length_is_taken,
    a_stamp_that_keyturn_did_not_make_is_a_claim,
    a_stamp_of_an_earlier_release_counts_from_before_the_key,
    a_list_is_complete_over_several_pages,
    a_list_takes_folders_and_exact_paths,
    regions_are_apart,
    what_is_written_is_a_secure_string,
}
