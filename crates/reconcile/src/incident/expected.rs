//! Expected readers: the callers that people have listed by an ARN, by the address that they call from, or by both. The
//! functions are pure.

use std::net::IpAddr;

use keyturn_api::readers::{ExpectedReader, parse_network};
use keyturn_api::secret_incident::AddressIs;

use super::event::{Call, DECRYPT};

/// Path of the roles that IAM Identity Center creates. The name of the region follows the path, except in us-east-1.
const SSO_PATH: &str = "aws-reserved/sso.amazonaws.com/";

/// A caller and the address that it calls from.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// ARN of the user or role, see [`Call::principal`].
    pub principal: &'a str,
    /// Name of the session, see [`Call::session`].
    pub session: Option<&'a str>,
    /// IP address, or the name of the AWS service that made the call.
    pub address: &'a str,
    /// True for a KMS event that Parameter Store caused: KMS sees the address of Parameter Store, and not that of the
    /// reader.
    pub by_kms: bool,
}

impl<'a> From<&'a Call> for Caller<'a> {
    fn from(call: &'a Call) -> Self {
        let (principal, session, address) = (&call.principal, call.session.as_deref(), &call.address);
        Self { principal, session, address, by_kms: is_by_kms(call) }
    }
}

/// True for a KMS event about a value that Parameter Store decrypted for somebody. False for other events, also if
/// somebody called KMS directly.
pub fn is_by_kms(call: &Call) -> bool {
    call.name == DECRYPT && call.address.parse::<IpAddr>().is_err()
}

/// Result of comparing a caller with the lists of expected readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// No item fits the caller.
    Nobody,
    /// An item lists the principal, but with networks that do not contain the address.
    NotFromThere,
    /// An item lists the principal, and its networks do not count: it has none, or the event is from KMS.
    Principal,
    /// An item lists the network without a principal, or the principal together with this network.
    FromThere,
}

impl Expectation {
    /// True when the caller is expected.
    pub fn is_met(self) -> bool {
        matches!(self, Self::Principal | Self::FromThere)
    }

    /// Returns the result for the address; `None` if the lists do not decide it.
    pub fn address(self) -> Option<AddressIs> {
        match self {
            Self::NotFromThere => Some(AddressIs::NotListed),
            Self::FromThere => Some(AddressIs::Listed),
            Self::Principal | Self::Nobody => None,
        }
    }
}

/// Returns the best result that any item gives for this caller. A result that expects the caller is better than the
/// others.
pub fn expectation<'a>(
    caller: Caller<'_>,
    expected: impl IntoIterator<Item = &'a ExpectedReader>,
) -> Expectation {
    let names = names(caller);
    let address: Option<IpAddr> = caller.address.parse().ok();
    let mut best = Expectation::Nobody;
    for item in expected {
        let named = item.principal.as_ref().map(|pattern| names.iter().any(|name| matches(pattern, name)));
        let nearby = match address {
            _ if item.networks.is_empty() => None,
            Some(address) => Some(item.networks.iter().any(|network| is_in(network, address))),
            None if caller.by_kms && named.is_some() => None,
            None => Some(false),
        };
        let says = match (named, nearby) {
            (Some(false), _) | (None, None | Some(false)) => continue,
            (Some(true), Some(false)) => Expectation::NotFromThere,
            (Some(true), None) => Expectation::Principal,
            (_, Some(true)) => return Expectation::FromThere,
        };
        if !best.is_met() {
            best = says;
        }
    }
    best
}

/// Returns the ARNs under which people know a caller:
///
/// - CloudTrail's own ARN, with the path of the role or user;
/// - the ARN without the path, since a name occurs only once in an account;
/// - for a role of IAM Identity Center, the ARN without the region in its path;
/// - the ARN of the session, as `aws sts get-caller-identity` prints it.
fn names(caller: Caller<'_>) -> Vec<String> {
    let principal = caller.principal;
    let mut names = vec![principal.to_owned()];
    let mut fields = principal.splitn(6, ':');
    let (Some("arn"), Some(partition), Some(service), Some(_), Some(account), Some(resource)) =
        (fields.next(), fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return names;
    };
    let Some((kind, path)) = resource.split_once('/') else { return names };
    let iam = |resource: String| format!("arn:{partition}:iam::{account}:{resource}");
    let sts = |resource: String| format!("arn:{partition}:sts::{account}:{resource}");
    let name = path.rsplit('/').next().unwrap_or(path);
    let session = || caller.session.iter();
    match (service, kind) {
        ("iam", "role") => {
            names.push(iam(format!("role/{name}")));
            if path.starts_with(SSO_PATH) {
                names.push(iam(format!("role/{SSO_PATH}{name}")));
            }
            names.push(sts(format!("assumed-role/{name}")));
            names.extend(session().map(|session| sts(format!("assumed-role/{name}/{session}"))));
        }
        ("iam", "user") => {
            names.push(iam(format!("user/{name}")));
            names.extend(session().map(|session| sts(format!("federated-user/{session}"))));
        }
        // The principal is the ARN of a session, since the event does not name the role that issued it.
        ("sts", "assumed-role") => {
            let role = path.split('/').next().unwrap_or(path);
            names.push(sts(format!("assumed-role/{role}")));
            names.push(iam(format!("role/{role}")));
        }
        _ => {}
    }
    names
}

/// Matches a text with a pattern, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn is_in(network: &str, address: IpAddr) -> bool {
    let Some((base, length)) = parse_network(network) else { return false };
    let same = |a: u128, b: u128, bits: u32| length == 0 || (a ^ b) >> (bits - length) == 0;
    match (base, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.into(), b.into(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller<'a>(principal: &'a str, session: Option<&'a str>) -> Caller<'a> {
        Caller { principal, session, address: "203.0.113.9", by_kms: false }
    }

    fn reader(principal: &str, networks: &[&str]) -> ExpectedReader {
        let principal = Some(principal.to_owned()).filter(|text| !text.is_empty());
        ExpectedReader { principal, networks: networks.iter().map(|text| (*text).to_owned()).collect() }
    }

    fn is_named(caller: Caller<'_>, pattern: &str) -> bool {
        expectation(caller, &[reader(pattern, &[])]).is_met()
    }

    #[test]
    fn a_principal_and_networks_in_one_item_must_both_fit() {
        use Expectation::*;
        let thief = "arn:aws:iam::1:role/web";
        let at = |address| Caller { address, ..caller(thief, None) };
        let (here, there) = (at("10.1.2.3"), at("203.0.113.9"));
        for (items, from_here, from_there) in [
            (vec![reader("", &["10.0.0.0/8"])], FromThere, Nobody),
            (vec![reader("*/web", &["10.0.0.0/8", "2001:db8::/32"])], FromThere, NotFromThere),
            (vec![reader("*/other", &["10.0.0.0/8"])], Nobody, Nobody),
            (vec![reader("*/web", &[])], Principal, Principal),
            (vec![reader("*/web", &["192.0.2.0/24"]), reader("*/web", &[])], Principal, Principal),
            (vec![reader("*/web", &[]), reader("*/web", &["10.1.2.3"])], FromThere, Principal),
            (vec![reader("*/web", &["192.0.2.0/24"]), reader("", &["10.1.2.3"])], FromThere, NotFromThere),
        ] {
            assert_eq!(expectation(here, &items), from_here, "{items:?}");
            assert_eq!(expectation(there, &items), from_there, "{items:?}");
        }
    }

    #[test]
    fn a_service_that_calls_for_somebody_has_no_address_in_a_network() {
        let web = [reader("*/web", &["10.0.0.0/8"])];
        let by_service = Caller { address: "cloudformation.amazonaws.com", ..caller("x/web", None) };
        assert_eq!(expectation(by_service, &web), Expectation::NotFromThere);
        // An event of KMS confirms a read, and the event of the read itself has the address.
        let by_kms = Caller { address: "ssm.amazonaws.com", by_kms: true, ..by_service };
        assert_eq!(expectation(by_kms, &web), Expectation::Principal);
        assert_eq!(expectation(by_kms, &[reader("", &["10.0.0.0/8"])]), Expectation::Nobody);
        // Somebody calls KMS directly with the ciphertext.
        let himself = Caller { address: "203.0.113.9", ..by_kms };
        assert_eq!(expectation(himself, &web), Expectation::NotFromThere);
    }

    #[test]
    fn readers_are_expected_by_pattern_or_network() {
        let thief = caller("arn:aws:iam::1:role/thief", None);
        for pattern in ["arn:aws:iam::1:role/thief", "arn:aws:iam::*:role/th*", "arn:*"] {
            assert!(is_named(thief, pattern), "{pattern}");
        }
        for pattern in ["arn:aws:iam::1:role/thie", "arn:aws:iam::2:*"] {
            assert!(!is_named(thief, pattern), "{pattern}");
        }
        let is_near = |network| expectation(thief, &[reader("", &[network])]).is_met();
        for network in ["203.0.113.9", "203.0.113.0/24", "0.0.0.0/0"] {
            assert!(is_near(network), "{network}");
        }
        for network in ["203.0.113.8", "10.0.0.0/8", "2001:db8::/32", "::/0"] {
            assert!(!is_near(network), "{network}");
        }
    }

    #[test]
    fn a_reader_is_expected_by_any_arn_that_people_know_it_by() {
        let sso = "AWSReservedSSO_Admin_0123456789abcdef";
        let of_sso = format!("arn:aws:iam::1:role/{SSO_PATH}eu-west-1/{sso}");
        let role = caller("arn:aws:iam::1:role/service-role/ci", Some("i-0abc"));
        let person = caller(&of_sso, Some("ada@example.com"));
        let user = caller("arn:aws:iam::1:user/people/ada", Some("ada"));
        let unissued = caller("arn:aws:sts::1:assumed-role/ci/i-0abc", Some("i-0abc"));
        let in_china = caller("arn:aws-cn:iam::1:role/app/ci", Some("i-0abc"));
        for (caller, pattern) in [
            (role, "arn:aws:iam::1:role/service-role/ci".to_owned()),
            (role, "arn:aws:iam::1:role/ci".to_owned()),
            (role, "arn:aws:sts::1:assumed-role/ci/*".to_owned()),
            (role, "arn:aws:sts::1:assumed-role/ci/i-0abc".to_owned()),
            (role, "arn:aws:sts::1:assumed-role/ci".to_owned()),
            (person, format!("arn:aws:iam::1:role/{sso}")),
            (person, format!("arn:aws:iam::1:role/{SSO_PATH}{sso}")),
            (person, format!("arn:aws:sts::1:assumed-role/{sso}/ada@example.com")),
            (user, "arn:aws:iam::1:user/ada".to_owned()),
            (user, "arn:aws:sts::1:federated-user/ada".to_owned()),
            (unissued, "arn:aws:iam::1:role/ci".to_owned()),
            (unissued, "arn:aws:sts::1:assumed-role/ci/*".to_owned()),
            (in_china, "arn:aws-cn:sts::1:assumed-role/ci/*".to_owned()),
        ] {
            assert!(is_named(caller, &pattern), "{pattern}");
        }
        for (caller, pattern) in [
            (role, "arn:aws:iam::1:role/other/ci"),
            (role, "arn:aws:sts::1:assumed-role/ci/i-0abd"),
            (role, "arn:aws:sts::2:assumed-role/ci/*"),
            (role, "arn:aws:iam::1:user/ci"),
            (person, "arn:aws:sts::1:assumed-role/AWSReservedSSO_Admin_0123456789abcdef/eve@example.com"),
            (user, "arn:aws:iam::1:role/ada"),
            (in_china, "arn:aws:sts::1:assumed-role/ci/*"),
        ] {
            assert!(!is_named(caller, pattern), "{pattern}");
        }
    }
}
