//! The audit of the runbook, for comparison with ours: `docker history --no-trunc IMAGE | grep -iE …` over the
//! commands, and five words in the names of variables.

use serde_json::Value;

use super::image::Outputs;

/// True if it would print FAIL or WARN.
pub(crate) fn alarms(outputs: &Outputs) -> bool {
    let history = outputs.history.lines().any(|line| {
        let layer: Value = serde_json::from_str(line).unwrap();
        let command = layer["CreatedBy"].as_str().unwrap().to_lowercase();
        ["password", "secret", "token", "key", "credential"].iter().any(|word| command.contains(word))
    });
    let inspect: Value = serde_json::from_str(&outputs.inspect).unwrap();
    let variables = inspect[0]["Config"]["Env"].as_array().unwrap();
    let named = variables.iter().any(|entry| {
        let name = entry.as_str().unwrap().split('=').next().unwrap().to_uppercase();
        ["PASSWORD", "SECRET", "TOKEN", "KEY", "CREDENTIAL"].iter().any(|word| name.contains(word))
    });
    history || named
}
