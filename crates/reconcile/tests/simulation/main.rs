//! Runs the real reconcilers over a simulated world: every fault at every effect, with the invariants checked after
//! each.
//!
//! The world is deterministic and single-threaded; only the harness advances its time. A case is a scenario (the
//! actions of people) and a plan of faults, each at the n-th effect that the controller has on the world.

mod branches;
mod faults;
mod harness;
mod invariants;
mod memory;
mod pairs;
mod prove;
mod scenarios;
mod seeded;
mod summary;
mod world;

use branches::{alone, run_with_each};
use faults::{Fault, Plan};
use harness::{Attention, Ending, run};
use scenarios::Scenario;

impl Ending {
    /// Checks that this run kept every invariant and ended as the run without faults did.
    fn check(&self, scenario: &Scenario, calm: &Ending) -> Result<(), String> {
        if let Some(violation) = self.violations.first() {
            return Err(violation.clone());
        }
        if self.summary == calm.summary || scenario.or_else.is_some_and(|right| right(&self.summary)) {
            return Ok(());
        }
        if self.request_forgotten && self.ends_with_a_recorded_request(calm) {
            return Ok(());
        }
        if self.answer_forgotten && self.ends_with_one_rotation_more(calm) {
            return Ok(());
        }
        if self.roll_back_forgotten && self.ends_alike_but_for_the_word_of_a_roll_back(calm) {
            return Ok(());
        }
        Err(format!(
            "{}: ends differently:\n    {}",
            invariants::SAME_END,
            difference(&calm.summary, &self.summary)
        ))
    }

    /// The first documented exception, see `invariants::status_is_emptied`.
    fn ends_with_a_recorded_request(&self, calm: &Ending) -> bool {
        let clean = self.summary.secrets.values().all(|s| s.mirrors.is_empty() && !s.rotating);
        let fewer = self.summary.parameters.iter().all(|(path, end)| {
            calm.summary.parameters.get(path).is_none_or(|calm| end.generated <= calm.generated)
        });
        let mut alike = self.summary.clone();
        for (path, end) in &mut alike.parameters {
            end.generated = calm.summary.parameters.get(path).map_or(0, |calm| calm.generated);
        }
        fewer && (self.recorded && clean && self.summary.staged.is_empty() || alike == calm.summary)
    }
}

impl Ending {
    /// The second documented exception: the answer to a request is known from its stamp or from the status. A request
    /// that was only recorded has no stamp, so if the status is lost it is executed when it comes back.
    fn ends_with_one_rotation_more(&self, calm: &Ending) -> bool {
        let in_order = self.summary.secrets.values().all(|s| s.mirrors.is_empty() && !s.rotating);
        let one_more = self.summary.parameters.iter().all(|(path, end)| {
            calm.summary.parameters.get(path).is_some_and(|calm| end.generated <= calm.generated + 1)
        });
        in_order && one_more && self.summary.staged.is_empty()
    }
}

impl Ending {
    /// The third documented exception: only its record and the status show that a rotation was rolled back before
    /// anything was published. If both are lost before the status is written again, its request is reported as
    /// recorded.
    fn ends_alike_but_for_the_word_of_a_roll_back(&self, calm: &Ending) -> bool {
        let mut alike = self.summary.clone();
        for (name, end) in &mut alike.secrets {
            let before = calm.summary.secrets.get(name).and_then(|calm| calm.last_rotation.clone());
            let told = |rotation: &Option<(String, String)>, result| {
                rotation.as_ref().is_some_and(|(_, told)| told == result)
            };
            if told(&end.last_rotation, "Recorded") && told(&before, "RolledBack") {
                end.last_rotation = before;
            }
        }
        alike == calm.summary
    }
}

fn difference(calm: &summary::Summary, this: &summary::Summary) -> String {
    let (calm, this) = (format!("{calm:#?}"), format!("{this:#?}"));
    let (calm, this): (Vec<&str>, Vec<&str>) = (calm.lines().collect(), this.lines().collect());
    let missing = calm.iter().filter(|line| !this.contains(line)).map(|line| format!("- {}", line.trim()));
    let added = this.iter().filter(|line| !calm.contains(line)).map(|line| format!("+ {}", line.trim()));
    missing.chain(added).collect::<Vec<_>>().join("\n    ")
}

/// Runs a scenario without faults, then once with every fault at every effect of that run, and compares the ends.
fn every_single_fault(scenario: &Scenario, attention: Attention) {
    single_faults(scenario, attention, |_, faults| faults);
}

/// The same, with only those faults that `choose` keeps for the n-th effect.
fn single_faults(
    scenario: &Scenario,
    attention: Attention,
    choose: impl Fn(usize, Vec<Fault>) -> Vec<Fault>,
) {
    let calm = run(scenario, &Plan::none(), attention, None);
    assert_eq!(calm.violations, Vec::<String>::new(), "{}: without a fault", scenario.name);
    assert!((scenario.ends)(&calm.summary), "{}: ends badly without a fault", scenario.name);
    let faults = (0..calm.effects.len()).flat_map(|at| {
        let faults = calm.faults_at(at).collect();
        choose(at, faults).into_iter().map(move |fault| (at, fault))
    });
    let (trunk, told) = run_with_each(scenario, &Plan::none(), attention, faults.collect(), |ending| {
        let problem = ending.check(scenario, &calm).err();
        (ending.passes, problem.map(|problem| (problem, ending.log)))
    });
    assert_eq!(trunk.log, calm.log, "{}: is not the same every time", scenario.name);

    let cases = told.len();
    let passes: usize = told.iter().map(|(_, (passes, _))| passes).sum();
    let failures: Vec<(String, Vec<String>)> = told
        .into_iter()
        .filter_map(|(plan, (_, failure))| {
            let (problem, log) = failure?;
            let hit: Vec<&str> =
                plan.0.iter().filter_map(|(at, _)| calm.log.get(*at)).map(|l| l.trim()).collect();
            let case = pairs::case(scenario, attention, &plan);
            Some((format!("{case} [{}]: {problem}", hit.join(" | ")), log))
        })
        .collect();
    let (name, effects, count) = (scenario.name, calm.effects.len(), failures.len());
    println!("{name}, {attention:?}: {effects} effects, {cases} cases, {passes} passes, {count} violations");
    let shown: Vec<&str> = failures.iter().map(|(what, _)| what.as_str()).take(12).collect();
    let log = failures.first().map(|(_, log)| log.join("\n")).unwrap_or_default();
    assert!(failures.is_empty(), "{name}: {count} of {cases}\n{}\n\nFirst:\n{log}", shown.join("\n"));
}

macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        $(#[test] fn $name() {
            alone(stringify!($name), || every_single_fault(&scenarios::$name(), Attention::Watches));
        })*

        fn all_scenarios() -> Vec<Scenario> {
            vec![$(scenarios::$name()),*]
        }
    };
}

scenarios! {
    a_missing_parameter_is_created,
    a_missing_parameter_is_created_and_deployed,
    an_adopted_value_is_rotated_when_due,
    a_value_of_its_own_is_rotated_when_due,
    a_request_rotates_once,
    a_request_rotates_once_on_a_host,
    two_requests_in_a_row_rotate_twice,
    a_request_in_mid_rotation_queues,
    two_parameters_are_published_from_one_draw,
    two_missing_parameters_are_created,
    a_fernet_ring_keeps_the_previous_key,
    two_secrets_of_one_host_rotate_together,
    two_hosts_of_one_secret_go_one_after_another,
    a_failed_deployment_is_held_until_it_works,
    a_failed_deployment_is_rolled_back,
    a_value_that_somebody_puts_in_the_name_of_keyturn_is_drift,
    a_request_is_not_answered_by_what_somebody_writes_in_the_name_of_keyturn,
    an_incident_is_not_contained_by_a_stamp_that_somebody_writes,
    an_incident_is_not_stopped_by_another_owner_in_a_description,
    a_foreign_write_is_reported,
    a_value_that_somebody_wrote_just_before_it_came_of_age_is_reported,
    a_foreign_write_is_adopted_where_asked,
    a_foreign_write_is_replaced_where_asked,
    a_foreign_write_after_the_record_is_held_and_reported,
    a_foreign_write_after_the_record_is_adopted_where_asked,
    a_foreign_write_in_mid_deployment_is_held_and_reported,
    a_foreign_write_in_mid_deployment_is_adopted_where_asked,
    a_foreign_write_in_mid_deployment_is_replaced_where_asked,
    a_parameter_that_is_deleted_and_put_again_in_mid_rotation_is_reported,
    deleting_in_mid_rotation_finishes_it,
    deleting_with_policy_delete_removes_the_parameter,
    deleting_and_applying_again_rotates_nothing,
    an_edit_in_mid_rotation_changes_nothing_of_it,
    a_host_that_is_removed_in_mid_rotation_still_counts,
    a_host_that_is_added_in_mid_rotation_counts,
    a_host_whose_object_is_deleted_in_mid_rotation_is_waited_for,
    a_grant_that_is_withdrawn_in_mid_rotation_wins,
    a_host_whose_key_does_not_allow_it_runs_nothing_until_it_is_labelled,
    a_suspension_in_mid_rotation_lets_it_finish,
    a_request_to_a_suspended_secret_waits,
    objects_that_are_lost_and_applied_again_rotate_nothing,
    objects_that_are_lost_in_mid_rotation_and_applied_again_finish_it,
    objects_that_are_lost_in_mid_deployment_and_applied_again_later_finish_it,
    observing_touches_nothing,
    a_window_is_waited_for,
    a_single_role_is_rotated_by_an_administrator,
    a_single_role_changes_its_own_password,
    a_single_role_without_hosts_is_rotated,
    roles_take_turns,
    a_pair_is_made_from_the_role_in_use,
    roles_take_turns_twice,
    roles_take_turns_without_hosts,
    roles_take_turns_on_two_hosts,
    a_login_whose_deployment_fails_is_rolled_back,
    a_role_whose_deployment_fails_is_rolled_back_in_place,
    a_role_that_somebody_changed_is_left_alone_until_what_is_published_works,
    a_server_that_is_away_is_waited_for,
    an_empty_environment_takes_its_role_from_what_is_deployed,
    a_login_that_does_not_exist_is_not_made,
    deleting_while_roles_take_turns_finishes_it,
    a_foreign_write_over_a_changed_role_is_published_over,
    a_foreign_write_over_a_changed_role_is_published_over_once_its_server_is_back,
    an_incident_rotates_a_suspended_secret_at_once,
    an_incident_in_mid_deployment_draws_another_value,
    an_incident_that_is_applied_again_does_nothing,
    an_incident_about_a_whole_host_rotates_all_it_runs,
    an_incident_while_roles_take_turns_revokes_both,
    an_incident_revokes_in_time_although_nothing_can_be_published,
    an_incident_does_not_wait_for_the_host_that_goes_first,
    an_incident_revokes_a_role_at_rest,
    an_incident_that_revokes_first_does_so,
    an_incident_changes_a_single_role,
    a_login_is_not_told_to_work_while_reads_show_the_one_before_it,
    an_incident_in_the_middle_of_a_single_role,
    an_incident_revokes_although_a_host_is_down,
    an_incident_in_mid_rotation_revokes_although_a_host_is_down,
    an_incident_leaves_nobody_logged_in_although_the_server_was_away_when_its_time_came,
    an_incident_waits_for_a_server_that_is_away,
    an_incident_under_an_observing_grant_touches_nothing,
    an_incident_changes_no_role_through_a_host_that_is_observed,
    an_incident_under_a_grant_that_cannot_be_read_touches_nothing,
    a_key_pair_is_rotated,
    a_key_pair_without_hosts_is_rotated,
    a_key_pair_is_rotated_twice,
    a_key_pair_in_two_parameters_is_rotated,
    an_empty_environment_is_given_a_key_pair,
    a_key_pair_whose_deployment_fails_is_rolled_back,
    a_token_that_somebody_deletes_before_it_is_published_is_replaced,
    cloudflare_that_is_away_is_waited_for,
    a_token_of_a_user_is_left_to_its_user,
    deleting_while_a_key_pair_is_rotated_finishes_it,
    a_pair_that_r2_refuses_is_left_alone_until_it_works,
    an_incident_revokes_a_key_pair,
    an_incident_that_revokes_a_key_pair_first_does_so,
    an_incident_whose_revocation_fails_gives_hosts_another_pair_all_the_same,
    an_incident_about_a_token_of_a_user_gives_hosts_another_pair_all_the_same,
    an_incident_in_mid_rotation_revokes_both_key_pairs,
    an_incident_revokes_a_key_pair_although_a_host_is_down,
    the_id_of_another_token_in_the_parameter_does_not_delete_that_token,
    an_incident_deletes_the_token_that_is_used_and_not_the_one_that_somebody_names,
    an_incident_deletes_the_pair_that_was_adopted_and_not_the_token_that_somebody_names,
    a_text_that_is_no_pair_does_not_hold_an_incident,
    a_pair_that_a_person_has_put_and_uses_is_deleted_with_the_one_before_it,
    an_incident_deletes_every_pair_that_a_person_has_put,
    an_incident_deletes_every_older_token_of_its_secret,
    an_incident_that_is_reported_late_deletes_every_older_token_of_its_secret,
    a_published_value_with_another_description_is_no_drift,
    a_host_that_is_missing_keeps_no_other_from_its_password,
    a_host_whose_password_was_changed_waits_for_no_host_before_it,
    a_foreign_write_before_the_hosts_follow_is_published_over,
    a_label_on_the_oldest_version_is_found_before_a_role_is_changed,
    a_policy_that_leaves_the_path_out_is_found_before_a_role_is_changed,
    a_password_that_cannot_be_published_is_taken_back,
    a_password_that_cannot_be_published_is_taken_back_once_its_server_can_be_asked,
    a_suspension_while_a_password_is_taken_back_hides_nothing,
    a_password_that_cannot_be_published_is_taken_back_although_somebody_wrote,
    a_half_of_a_pair_that_cannot_be_published_is_rolled_back,
    a_recorded_request_is_not_executed_after_another_rotation,
    a_recorded_request_that_comes_back_rotates_nothing,
    a_host_that_no_cache_shows_is_not_gone,
    a_host_that_cannot_be_decoded_is_there_and_has_proven_nothing,
    a_parameter_of_another_object_is_left_alone,
    a_record_about_other_parameters_is_left_alone,
    a_missing_parameter_of_a_suspended_secret_is_not_created,
    a_parameter_that_is_missing_beside_another_is_told,
    a_foreign_write_to_a_suspended_secret_waits,
    a_host_waits_for_the_one_before_it,
    a_host_that_was_changed_by_hand_is_found_before_a_rotation_begins,
    a_key_that_nobody_named_is_told_and_kept,
    a_pair_that_cannot_be_compared_is_retired_in_time_however_often_its_host_is_looked_at,
    a_look_at_a_host_deploys_nothing_again_that_cannot_be_compared,
    a_login_that_somebody_else_uses_is_not_retired,
    a_foreign_write_while_roles_take_turns_is_not_adopted,
    a_parameter_that_is_lost_with_its_history_is_rotated_past_the_fence,
    a_host_is_not_deployed_to_while_a_role_of_it_is_changed,
    a_host_is_not_deployed_to_while_the_password_of_its_role_waits_for_ssm,
    a_host_is_not_deployed_to_while_the_password_of_its_role_is_taken_back,
    a_host_outside_the_grants_is_not_touched,
    a_host_with_a_window_gets_its_password_although_another_one_is_missing,
    a_password_that_was_installed_is_not_forgotten_with_its_object,
    a_password_that_may_be_installed_is_not_forgotten_while_its_server_is_away,
    a_verification_on_a_host_that_was_not_deployed_to_adopts_nothing,
    a_role_that_cannot_be_changed_holds_no_other_secret,
    an_incident_leaves_a_parameter_under_its_key,
    an_incident_beside_a_role_that_cannot_be_changed_is_contained,
    a_rotation_does_not_begin_where_a_host_could_not_be_deployed_to,
    a_server_that_is_there_is_given_the_first_password_before_it_is_published,
    a_server_that_is_there_is_given_the_first_login_of_roles_that_take_turns,
    a_string_is_found_before_a_role_is_changed,
    an_allowed_pattern_is_found_before_a_role_is_changed,
    a_role_is_not_rolled_back_because_nobody_heard_how_its_deployments_went,
    an_edit_of_the_source_in_mid_rotation_publishes_nothing_that_no_target_was_given,
    a_host_with_a_window_gets_its_password_although_its_source_was_edited,
    a_value_of_an_earlier_rotation_that_is_restored_is_not_deployed,
    a_login_that_hosts_use_is_not_changed_because_an_earlier_one_was_restored,
    a_random_value_of_an_earlier_rotation_that_is_restored_is_not_deployed,
    an_incident_leaves_no_earlier_key_in_a_ring,
    an_incident_that_is_reported_late_leaves_no_earlier_key_in_a_ring,
    an_incident_about_a_value_that_somebody_has_just_put_replaces_it,
    an_incident_that_is_deleted_in_mid_rotation_leaves_nothing_to_a_person,
    an_incident_about_a_role_does_not_end_with_what_somebody_puts_after_the_report,
    an_incident_does_not_wait_for_a_person_who_has_written_over_a_rotation,
    a_secret_that_is_deleted_with_its_grant_is_let_go,
    a_secret_that_is_deleted_under_an_observing_grant_is_let_go,
    a_secret_whose_parameters_are_to_go_too_is_let_go_without_a_grant,
    requests_that_come_back_in_any_order_rotate_nothing,
    an_answered_request_asks_no_host_when_the_controller_is_new,
    an_incident_is_not_contained_while_nobody_sees_since_when_sessions_are_open,
    an_incident_is_not_contained_while_a_host_that_is_down_may_still_be_logged_in,
    an_incident_about_a_role_that_sees_nothing_of_itself_says_that_its_sessions_may_go_on,
    a_role_without_an_administrator_ends_its_own_sessions_in_an_incident,
    a_token_that_ends_before_the_longer_period_does_is_rotated_before,
    a_token_that_ends_while_its_secret_is_suspended_is_told_to_be_overdue,
    an_incident_that_was_deleted_a_moment_ago_revokes_nothing,
    a_first_value_answers_the_request_that_came_with_its_object,
    an_object_that_comes_later_waits_for_the_listing_that_covers_it,
    a_first_value_is_followed_by_a_rotation,
    a_parameter_that_somebody_deleted_is_created_again,
    a_first_value_that_somebody_puts_at_the_same_time_is_not_written_over,
    an_object_that_takes_its_parameter_along_is_deleted_while_that_is_created,
    an_object_is_deleted_while_its_first_value_is_created,
    a_value_that_somebody_writes_just_before_a_rotation_is_closed_is_not_lost,
    a_second_object_on_a_path_is_told_and_does_nothing,
    a_second_object_on_a_role_is_told_and_does_nothing,
    an_object_that_was_applied_again_in_mid_rotation_is_held_too,
    a_rotation_does_not_begin_without_one_of_its_hosts,
    a_suspended_host_is_named_and_not_touched,
    two_secrets_of_one_host_are_deployed_once,
    another_machine_in_the_place_of_a_host_is_deployed_to,
    a_parameter_that_is_created_again_on_a_host_is_compared_again,
    a_version_that_nobody_can_read_stops_nothing,
    what_cannot_be_compared_keeps_the_old_pair_until_somebody_says_that_verify_is_enough,
    a_run_whose_verify_failed_adopts_nothing_that_cannot_be_compared,
    a_role_is_not_changed_while_its_host_is_deployed_to,
    a_roll_back_that_fails_too_is_held,
    a_suspected_value_is_not_brought_back,
    an_incident_while_a_rotation_is_rolled_back_replaces_what_comes_back,
    an_incident_concerns_the_value_that_a_roll_back_has_brought_back,
    a_second_report_is_answered_too,
    deleting_in_mid_rotation_while_a_host_is_down_ends_in_time,
    deleting_at_rest_removes_the_parameters_too,
    an_incident_keeps_the_key_that_nobody_named,
    a_single_role_is_not_closed_while_its_server_is_away,
    a_value_is_not_rolled_back_because_nobody_heard_how_its_deployment_went,
    a_record_that_somebody_restores_is_not_published_again,
    a_record_of_an_earlier_life_that_somebody_restores_changes_no_role,
    what_could_not_be_told_is_told_once_it_can_be_though_ssm_cannot_be_read,
    a_request_that_was_taken_back_is_not_executed_again,
    a_rotation_that_came_of_age_and_was_taken_back_is_put_off,
}

/// The checks can fail: each of these bugs, planted between the controller and the world, violates an invariant in some
/// case.
#[test]
fn planted_bugs_are_found() {
    use world::Sabotage;
    let plain = scenarios::a_request_rotates_once;
    let on_host = scenarios::a_request_rotates_once_on_a_host;
    let twice = scenarios::two_requests_in_a_row_rotate_twice;
    type Bug = (Sabotage, fn() -> Scenario, &'static [Fault]);
    let bugs: [Bug; 12] = [
        (Sabotage::NoDescription, plain, &[]),
        (
            Sabotage::CreateOverwrites,
            plain,
            &[Fault::CrashAndStaleReads, Fault::ZombieSoon, Fault::ZombieLate],
        ),
        (Sabotage::CreateAlwaysSaysCreated, plain, &[Fault::CrashAndStaleReads, Fault::ZombieSoon]),
        (Sabotage::NoGrace, twice, &[Fault::AppliedLate, Fault::DuplicatedLate, Fault::ZombieLate]),
        (Sabotage::RecordsVanish, plain, &[]),
        (Sabotage::RecordsHidden, plain, &[Fault::CrashAfter]),
        (Sabotage::HostsAlwaysProven, scenarios::a_failed_deployment_is_held_until_it_works, &[]),
        (Sabotage::LeakInStatus, plain, &[]),
        (Sabotage::TokensHidden, scenarios::a_key_pair_is_rotated, &[Fault::CrashAfter]),
        (Sabotage::RequestNeverHandled, plain, &[]),
        (Sabotage::TwoDeploys, on_host, &[]),
        (Sabotage::HostsAlwaysProven, scenarios::a_login_whose_deployment_fails_is_rolled_back, &[]),
    ];
    let mut survivors = Vec::new();
    for (bug, scenario, faults) in bugs {
        let scenario = scenario();
        let calm = run(&scenario, &Plan::none(), Attention::Watches, None);
        let plans = calm.effects.iter().enumerate().flat_map(|(at, kind)| {
            let faults = faults.iter().filter(|fault| fault.concerns(*kind));
            faults.map(move |fault| Plan::single(at, *fault))
        });
        let found = std::iter::once(Plan::none()).chain(plans).find_map(|plan| {
            let ending = run(&scenario, &plan, Attention::Watches, Some(bug));
            ending.check(&scenario, &calm).err().map(|problem| (plan, problem))
        });
        match found {
            Some((plan, problem)) => {
                println!("{bug:?}: found by {plan}: {}", problem.lines().next().unwrap_or(""))
            }
            None => survivors.push(bug),
        }
    }
    assert_eq!(survivors, [], "nothing noticed these bugs");
}

/// Leader election and resourceVersions prevent work and surprises; no invariant depends on them.
#[test]
fn without_any_fencing_zombies_still_break_nothing() {
    let scenario = scenarios::a_request_rotates_once();
    let calm = run(&scenario, &Plan::none(), Attention::Watches, None);
    for at in 0..calm.effects.len() {
        for fault in [Fault::ZombieSoon, Fault::ZombieLate] {
            let plan = Plan::single(at, fault);
            let ending = run(&scenario, &plan, Attention::Watches, Some(world::Sabotage::NoFencing));
            assert_eq!(ending.check(&scenario, &calm), Ok(()), "{plan}\n{}", ending.log.join("\n"));
        }
    }
}

#[test]
fn a_run_is_the_same_every_time() {
    let scenario = scenarios::a_request_rotates_once_on_a_host();
    let once = || run(&scenario, &Plan::none(), Attention::Watches, None);
    let (first, second) = (once(), once());
    assert_eq!(first.log, second.log);
    assert_eq!(first.summary, second.summary);
}

#[test]
fn without_faults_every_story_ends_well() {
    let mut problems = Vec::new();
    for scenario in all_scenarios() {
        for attention in [Attention::Watches, Attention::TimesOnly] {
            let started = std::time::Instant::now();
            let calm = run(&scenario, &Plan::none(), attention, None);
            println!(
                "{}: {} effects, {} passes, {} ms",
                scenario.name,
                calm.effects.len(),
                calm.passes,
                started.elapsed().as_millis()
            );
            let problem = match calm.violations.first() {
                None if (scenario.ends)(&calm.summary) => continue,
                None => format!("ends as {:#?}", calm.summary),
                Some(violation) => violation.clone(),
            };
            problems.push(format!("{}, {attention:?}: {problem}\n{}", scenario.name, calm.log.join("\n")));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n\n"));
}

/// Missing every event is itself a fault, so this is about pairs of faults: one fault at every other effect, a
/// different one in each story. `make prove` tries them all.
#[test]
fn a_fault_while_every_event_is_missed() {
    alone("a_fault_while_every_event_is_missed", || {
        for (number, scenario) in all_scenarios().into_iter().enumerate() {
            single_faults(&scenario, Attention::TimesOnly, |at, faults| match (at + number) % 2 {
                0 => vec![faults[(at + number) / 2 % faults.len()]],
                _ => Vec::new(),
            });
        }
    });
}

/// The result of a run that branched off must equal that of a run from the beginning, as `one_case` makes it.
#[test]
fn a_run_that_branches_off_is_the_same_as_one_from_the_beginning() {
    alone("a_run_that_branches_off_is_the_same_as_one_from_the_beginning", || {
        let scenario = scenarios::a_request_rotates_once_on_a_host();
        let calm = run(&scenario, &Plan::none(), Attention::Watches, None);
        let tell = |ending: Ending| (ending.log, format!("{:#?}", ending.summary), ending.violations);
        let faults = pairs::firsts(&calm);
        assert!(!faults.is_empty());
        let (_, told) = run_with_each(&scenario, &Plan::none(), Attention::Watches, faults, tell);
        for (plan, branched) in told {
            assert_eq!(branched, tell(run(&scenario, &plan, Attention::Watches, None)), "{plan}");
        }
    });
}

/// Runs one case, for investigating a failure: `CASE='name watches 12 CrashAfter' cargo test --package
/// keyturn-reconcile --test simulation -- --ignored --nocapture one_case` prints the story of one run, and fails where
/// that run fails.
#[test]
#[ignore = "for one run by name"]
fn one_case() {
    let case =
        std::env::var("CASE").unwrap_or_else(|_| "a_request_rotates_once watches 3 CrashAfter".to_owned());
    let words: Vec<&str> = case.split_whitespace().collect();
    let scenario =
        all_scenarios().into_iter().find(|s| Some(&s.name) == words.first()).expect("a scenario's name");
    let both = [Attention::Watches, Attention::TimesOnly];
    let attention = both.into_iter().find(|a| words.get(1) == Some(&a.to_string().as_str()));
    let attention = attention.expect("watches or times");
    let fault = |pair: &[&str]| {
        let fault =
            Fault::ALL.into_iter().find(|fault| format!("{fault:?}") == pair[1]).expect("a fault's name");
        (pair[0].parse().expect("the number of an effect"), fault)
    };
    let plan = Plan(words[2..].chunks(2).map(fault).collect());
    let calm = run(&scenario, &Plan::none(), attention, None);
    let ending = run(&scenario, &plan, attention, None);
    println!("{}\n{:#?}", ending.log.join("\n"), ending.summary);
    assert_eq!(ending.check(&scenario, &calm), Ok(()));
}
