//! What every issuer does, whichever it is.

use keyturn::rotation::observed::Acceptance;
use keyturn::secret_value::SecretValue;
use keyturn::source::{Claim, Kind, Login, Target, TargetError};

/// A server for one test, and the targets that keyturn has there.
pub(crate) trait Issuer {
    /// Opens the target of a secret whose login exists, or can be made.
    fn target(&self) -> Box<dyn Target>;

    /// Opens the same target at an address where nothing answers.
    fn unreachable(&self) -> Box<dyn Target>;

    /// Username of logins that are installed. A server that makes its logins names them itself.
    fn username(&self) -> String;

    /// Username of a login that works and is not the secret's.
    fn of_others(&self) -> String;

    /// Texts that no message may hold, such as the administrator's password.
    fn secrets(&self) -> Vec<String>;
}

/// Returns a password that is used nowhere else.
fn password() -> String {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).unwrap();
    hex::encode(bytes)
}

/// Makes the new login of a rotation. `own` are the logins that worked until now.
async fn renew(
    issuer: &impl Issuer,
    target: &dyn Target,
    id: u64,
    own: &[Login],
) -> Result<Login, TargetError> {
    match target.kind() {
        Kind::Installs(installer) => {
            let login = Login { username: issuer.username(), password: SecretValue::new(password()) };
            installer.install(id, &login, own).await.map(|()| login)
        }
        Kind::Issues(maker) => maker.issue(id).await,
    }
}

async fn retire(target: &dyn Target, id: u64, username: &str) -> Result<(), TargetError> {
    match target.kind() {
        Kind::Installs(installer) => installer.retire(id, username).await,
        Kind::Issues(maker) => maker.retire(id, username, Claim::Name).await,
    }
}

async fn works(target: &dyn Target, login: &Login) -> bool {
    target.try_login(login).await == Acceptance::Accepted
}

pub(crate) async fn a_login_works_from_its_rotation_until_it_is_retired(issuer: &impl Issuer) {
    let target = issuer.target();
    let first = renew(issuer, &*target, 1, &[]).await.unwrap();
    assert!(works(&*target, &first).await);
    assert!(target.observe().await.unwrap().can_log_in.contains(&first.username));

    let second = renew(issuer, &*target, 2, &[first.duplicate()]).await.unwrap();
    assert!(works(&*target, &second).await, "the login of the second rotation");
    // A login that was installed has taken the place of the one before it; one that was issued stands beside it.
    let both = matches!(target.kind(), Kind::Issues(_));
    assert_eq!(works(&*target, &first).await, both);

    retire(&*target, 2, &first.username).await.unwrap();
    assert!(!works(&*target, &first).await, "it was retired");
    assert!(!target.observe().await.unwrap().can_log_in.contains(&first.username));
    assert_eq!(works(&*target, &second).await, both, "a login of another username goes on to work");
}

pub(crate) async fn a_wrong_password_is_refused_which_is_no_failure(issuer: &impl Issuer) {
    let target = issuer.target();
    let login = renew(issuer, &*target, 1, &[]).await.unwrap();
    let wrong = Login { username: login.username.clone(), password: SecretValue::new(password()) };
    let Acceptance::Refused(error) = target.try_login(&wrong).await else { panic!("it was accepted") };
    assert!(error.is_permanent(), "{error:?}");
    assert!(works(&*target, &login).await);
}

pub(crate) async fn a_step_that_is_repeated_changes_nothing_more(issuer: &impl Issuer) {
    let target = issuer.target();
    let login = renew(issuer, &*target, 1, &[]).await.unwrap();
    if let Kind::Installs(installer) = target.kind() {
        installer.install(1, &login, &[]).await.unwrap();
    }
    assert!(works(&*target, &login).await);
    for _ in 0..2 {
        retire(&*target, 1, &login.username).await.unwrap();
        assert!(!works(&*target, &login).await);
    }
}

pub(crate) async fn a_late_request_of_an_older_rotation_takes_nothing_away(issuer: &impl Issuer) {
    let target = issuer.target();
    let newer = renew(issuer, &*target, 7, &[]).await.unwrap();
    match target.kind() {
        Kind::Installs(installer) => {
            assert!(target.observe().await.unwrap().fenced, "the administrator can keep a fence");
            let late = Login { username: newer.username.clone(), password: SecretValue::new(password()) };
            let error = installer.install(6, &late, &[newer.duplicate()]).await.unwrap_err();
            assert!(!error.outcome_unknown, "{error:?}");
            installer.retire(6, &newer.username).await.unwrap_err();
        }
        Kind::Issues(maker) => {
            // Each login is named after its rotation, by which one that was left behind is found.
            let late = maker.issue(6).await.unwrap();
            let issued = target.observe().await.unwrap().issued.unwrap();
            for (id, login) in [(6, &late), (7, &newer)] {
                assert!(issued.iter().any(|it| it.id == id && it.username == login.username), "{issued:?}");
            }
            maker.retire(6, &late.username, Claim::Name).await.unwrap();
        }
    }
    assert!(works(&*target, &newer).await);
}

pub(crate) async fn what_belongs_to_others_is_not_retired(issuer: &impl Issuer) {
    let target = issuer.target();
    renew(issuer, &*target, 1, &[]).await.unwrap();
    let error = retire(&*target, 1, &issuer.of_others()).await.unwrap_err();
    assert!(error.trouble.is_permanent() && error.trouble.message.contains(&issuer.of_others()), "{error:?}");
}

pub(crate) async fn a_server_that_is_away_neither_accepts_nor_refuses(issuer: &impl Issuer) {
    let login = renew(issuer, &*issuer.target(), 1, &[]).await.unwrap();
    let away = issuer.unreachable();
    for error in [
        away.try_login(&login).await.unknown().unwrap().into(),
        away.observe().await.unwrap_err(),
        renew(issuer, &*away, 2, &[login.duplicate()]).await.unwrap_err(),
        retire(&*away, 2, &login.username).await.unwrap_err(),
    ] {
        assert!(!error.trouble.is_permanent() && !error.outcome_unknown, "nothing was sent: {error:?}");
    }
    assert!(works(&*issuer.target(), &login).await);
}

pub(crate) async fn no_message_holds_a_secret(issuer: &impl Issuer) {
    let target = issuer.target();
    let login = renew(issuer, &*target, 2, &[]).await.unwrap();
    let wrong = Login { username: login.username.clone(), password: SecretValue::new(password()) };
    let away = issuer.unreachable();
    let said = format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        target.try_login(&wrong).await,
        target.observe().await,
        retire(&*target, 1, &login.username).await,
        retire(&*target, 2, &issuer.of_others()).await,
        away.try_login(&login).await,
        away.observe().await,
        renew(issuer, &*away, 3, &[login.duplicate()]).await,
    );
    let secrets = [login.password.expose().to_owned(), wrong.password.expose().to_owned()];
    for secret in issuer.secrets().into_iter().chain(secrets) {
        assert!(!said.contains(&secret), "{said}");
    }
}
