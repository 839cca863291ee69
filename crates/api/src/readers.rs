//! Expected readers: principals and networks that may read the parameters of an incident.

use std::net::IpAddr;

use kube::KubeSchema;
use regex_lite::Regex;
use serde::{Deserialize, Serialize};

use super::rules::CelRule;

/// Pattern of the ARN of a caller in CloudTrail. A `*` may replace any part of a field, and the fields after it too.
macro_rules! caller_arn {
    () => {
        "^arn:([a-z-]*[*][A-Za-z0-9:/_+=,.@*-]*|aws[a-z-]*:([a-z]*[*][A-Za-z0-9:/_+=,.@*-]*\
         |iam:([*][A-Za-z0-9:/_+=,.@*-]*|:([0-9]*[*][A-Za-z0-9:/_+=,.@*-]*\
         |[0-9]{12}:(root|[a-z]*[*][A-Za-z0-9/_+=,.@*-]*|(role|user)(/[A-Za-z0-9_+=,.@*-]+)+)))\
         |sts:([*][A-Za-z0-9:/_+=,.@*-]*|:([0-9]*[*][A-Za-z0-9:/_+=,.@*-]*\
         |[0-9]{12}:([a-z-]*[*][A-Za-z0-9/_+=,.@*-]*\
         |assumed-role(/[A-Za-z0-9_+=,.@*-]+){1,2}|federated-user/[A-Za-z0-9_+=,.@*-]+)))))$"
    };
}
/// Pattern of an IPv4 address or network.
macro_rules! network_v4 {
    () => {
        "^(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])([.](25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])){3}\
         (/(3[0-2]|[12]?[0-9]))?$"
    };
}
/// Pattern of an IPv6 address or network.
macro_rules! network_v6 {
    () => {
        "^[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?$"
    };
}

const SOMEBODY: CelRule = (
    "has(self.principal) || has(self.networks) && self.networks.size() > 0",
    "set principal (who may read), networks (from where), or both; if both are set, a call must match both",
);
const PRINCIPAL: CelRule = (
    concat!("self.matches('", caller_arn!(), "')"),
    "must be the ARN of a role, a user or sessions, in which * stands for any text \
     (arn:aws:iam::123456789012:role/keyturn*, arn:aws:sts::123456789012:assumed-role/keyturn/*)",
);
const NETWORKS: CelRule = (
    concat!(
        "self.all(network, network.matches('",
        network_v4!(),
        "') || network.matches('",
        network_v6!(),
        "'))"
    ),
    "must be addresses or networks (192.0.2.7, 10.0.0.0/8, 2001:db8::/32)",
);

/// Expected reader: a principal, all callers from these networks, or that principal from these networks only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = SOMEBODY)]
pub struct ExpectedReader {
    /// ARN of a role, a user or sessions (`arn:aws:sts::…:assumed-role/role/session`), in which `*` stands for any
    /// text. The path of a role or user may be left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = PRINCIPAL)]
    pub principal: Option<String>,
    /// Addresses or networks. When a principal is set too, a call must match both. A call with stolen credentials of a
    /// host's role, from any other address, is then unexpected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 50)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[x_kube(validation = NETWORKS)]
    pub networks: Vec<String>,
}

impl ExpectedReader {
    /// Checks a reader that does not come through the API server, by the same rules.
    ///
    /// # Errors
    /// The text that is wrong, and what to write instead.
    pub fn check(&self) -> Result<(), String> {
        if self.principal.is_none() && self.networks.is_empty() {
            return Err(SOMEBODY.1.to_owned());
        }
        let fits = |form: &str, text: &str| Regex::new(form).is_ok_and(|form| form.is_match(text));
        if let Some(principal) = self.principal.iter().find(|text| !fits(caller_arn!(), text)) {
            return Err(format!("`{principal}` {}", PRINCIPAL.1));
        }
        let network = |text: &&String| fits(network_v4!(), text) || fits(network_v6!(), text);
        match self.networks.iter().find(|text| !network(text) || parse_network(text).is_none()) {
            Some(network) => Err(format!("`{network}` {}", NETWORKS.1)),
            None => Ok(()),
        }
    }
}

/// Parses the JSON list in the controller's environment; empty text means no readers.
///
/// # Errors
/// The text that is wrong, and what to write instead.
pub fn from_json(json: &str) -> Result<Vec<ExpectedReader>, String> {
    if json.trim().is_empty() {
        return Ok(Vec::new());
    }
    let readers: Vec<ExpectedReader> = serde_json::from_str(json).map_err(|error| error.to_string())?;
    readers.iter().try_for_each(ExpectedReader::check)?;
    Ok(readers)
}

/// Parses the address and prefix length of a network; a single address gets its full length.
pub fn parse_network(text: &str) -> Option<(IpAddr, u32)> {
    let (base, length) = match text.split_once('/') {
        Some((base, length)) => (base.parse::<IpAddr>().ok()?, Some(length.parse::<u32>().ok()?)),
        None => (text.parse::<IpAddr>().ok()?, None),
    };
    let whole = if base.is_ipv4() { 32 } else { 128 };
    Some((base, length.unwrap_or(whole))).filter(|(_, length)| *length <= whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(principal: Option<&str>, networks: &[&str]) -> ExpectedReader {
        let networks = networks.iter().map(|text| (*text).to_owned()).collect();
        ExpectedReader { principal: principal.map(str::to_owned), networks }
    }

    #[test]
    fn the_chart_takes_the_same_readers() {
        let chart = include_str!("../../../charts/keyturn/templates/_helpers.tpl");
        for form in [caller_arn!(), network_v4!(), network_v6!()] {
            assert!(chart.contains(form), "{form}");
        }
    }

    #[test]
    fn an_expected_reader_is_one_that_cloudtrail_can_name() {
        for right in [
            "arn:aws:iam::123456789012:role/keyturn",
            "arn:aws:iam::123456789012:role/aws-reserved/sso.amazonaws.com/eu-west-1/AWSReservedSSO_Admin_0123456789abcdef",
            "arn:aws:iam::123456789012:user/people/ada",
            "arn:aws:iam::123456789012:root",
            "arn:aws:iam::123456789012:*",
            "arn:aws:iam::*:role/th*",
            "arn:aws-us-gov:iam::123456789012:role/x",
            "arn:aws-cn:sts::123456789012:assumed-role/x/i-0abc",
            "arn:aws:sts::123456789012:assumed-role/keyturn/*",
            "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_Admin_0123456789abcdef/ada@example.com",
            "arn:aws:sts::123456789012:federated-user/ada",
            "arn:aws:*",
            "arn:*",
        ] {
            assert_eq!(reader(Some(right), &[]).check(), Ok(()), "{right}");
        }
        for wrong in [
            "",
            "keyturn",
            "123456789012",
            "192.0.2.7",
            "arn:aws:iam::123456789012",
            "arn:aws:iam::123456789012:role",
            "arn:aws:iam::123456789012:keyturn",
            "arn:aws:iam::1234:role/keyturn",
            "arn:aws:iam::123456789012:policy/keyturn",
            "arn:aws:iam::123456789012:instance-profile/keyturn",
            "arn:aws:iam::123456789012:assumed-role/keyturn/session",
            "arn:aws:sts::123456789012:role/keyturn",
            "arn:aws:sts::123456789012:assumed-role/service-role/keyturn/*",
            "arn:aws:iam::123456789012:role/keyturn/",
            "arn:aws:iam::123456789012:role//keyturn",
            "arn:aws:ec2:us-east-1:123456789012:instance/i-0123456789abcdef0",
            "arn:aws:ssm:us-east-1:123456789012:parameter/app/TOKEN",
        ] {
            let error = reader(Some(wrong), &["10.0.0.0/8"]).check().unwrap_err();
            assert!(error.starts_with(&format!("`{wrong}` ")), "{error}");
            assert!(error.contains("assumed-role/keyturn/*"), "{error}");
        }
    }

    #[test]
    fn networks_are_those_in_which_an_address_can_lie() {
        for right in
            ["192.0.2.7", "10.0.0.0/8", "0.0.0.0/0", "2001:db8::/32", "::ffff:192.0.2.7", "fe80::1/128"]
        {
            assert_eq!(reader(None, &[right]).check(), Ok(()), "{right}");
        }
        for wrong in [
            "",
            "web",
            "256.0.0.1",
            "10.0.0.0/33",
            "10.0.0",
            "010.0.0.1",
            "2001:db8::/129",
            ":::",
            "10.0.0.1/",
            "arn:aws:iam::123456789012:role/web",
        ] {
            let error = reader(Some("arn:*"), &["192.0.2.7", wrong]).check().unwrap_err();
            assert!(error.starts_with(&format!("`{wrong}` must be addresses or networks")), "{error}");
        }
        assert!(reader(None, &[]).check().unwrap_err().contains("a call must match both"));
    }

    #[test]
    fn the_environment_names_readers_as_an_incident_does() {
        assert_eq!(from_json(""), Ok(Vec::new()));
        let json = r#"[{"principal": "arn:*", "networks": ["10.0.0.0/8"]}, {"networks": ["192.0.2.7"]}]"#;
        let both = [reader(Some("arn:*"), &["10.0.0.0/8"]), reader(None, &["192.0.2.7"])];
        assert_eq!(from_json(json), Ok(both.to_vec()));
        assert!(from_json(r#"["arn:*"]"#).unwrap_err().contains("expected struct ExpectedReader"));
        assert!(from_json(r#"[{"principal": "web"}]"#).unwrap_err().contains("`web` must be the ARN"));
        assert!(from_json(r#"[{"network": "10.0.0.0/8"}]"#).unwrap_err().contains("a call must match both"));
    }
}
