//! Docker's output about an image, in the style of each builder.

use serde_json::{Value, json};

/// The builder of the image. Their histories differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Builder {
    Classic,
    BuildKit,
}

/// One instruction of a Dockerfile.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Env(&'static str, String),
    Label(&'static str, String),
    /// A build argument with its value in this build, and true if the Dockerfile has it as default.
    Arg(&'static str, String, bool),
    Run(String),
    Cmd(Vec<String>),
    Entrypoint(Vec<String>),
    Healthcheck(String),
    OnBuild(String),
    Copy(&'static str),
}

/// The outputs of `docker image inspect` and `docker history --no-trunc --format json`.
#[derive(Clone)]
pub(crate) struct Outputs {
    pub inspect: String,
    pub history: String,
}

pub(crate) fn built(name: &str, steps: &[Step], builder: Builder) -> Outputs {
    let mut config = json!({"Env": [], "Labels": {}, "Cmd": null, "Entrypoint": null, "OnBuild": null});
    let mut commands: Vec<String> = Vec::new();
    let mut arguments: Vec<String> = Vec::new();
    let meta = |instruction: String| match builder {
        Builder::Classic => format!("/bin/sh -c #(nop)  {instruction}"),
        Builder::BuildKit => instruction,
    };
    for step in steps {
        let command = match step {
            Step::Env(name, value) => {
                let entry = format!("{name}={value}");
                if let Some(env) = config["Env"].as_array_mut() {
                    env.retain(|known| !known.as_str().unwrap().starts_with(&format!("{name}=")));
                    env.push(json!(entry));
                }
                meta(format!("ENV {entry}"))
            }
            Step::Label(name, value) => {
                config["Labels"][*name] = json!(value);
                meta(format!("LABEL {name}={value}"))
            }
            Step::Arg(name, value, default) => {
                arguments.push(format!("{name}={value}"));
                meta(if *default { format!("ARG {name}={value}") } else { format!("ARG {name}") })
            }
            Step::Run(command) => {
                let arguments = match arguments.len() {
                    0 => String::new(),
                    count => format!("|{count} {} ", arguments.join(" ")),
                };
                match builder {
                    Builder::Classic => format!("{arguments}/bin/sh -c {command}"),
                    Builder::BuildKit => format!("RUN {arguments}/bin/sh -c {command} # buildkit"),
                }
            }
            Step::Cmd(words) => {
                config["Cmd"] = json!(words);
                meta(format!("CMD {}", listed(words, builder)))
            }
            Step::Entrypoint(words) => {
                config["Entrypoint"] = json!(words);
                meta(format!("ENTRYPOINT {}", listed(words, builder)))
            }
            Step::Healthcheck(command) => {
                config["Healthcheck"] =
                    json!({"Test": ["CMD-SHELL", command], "Interval": 30_000_000_000_u64});
                meta(format!(
                    "HEALTHCHECK &{{[\"CMD-SHELL\" {command:?}] \"30s\" \"0s\" \"0s\" \"0s\" '\\x00'}}"
                ))
            }
            Step::OnBuild(instruction) => {
                let mut triggers = config["OnBuild"].as_array().cloned().unwrap_or_default();
                triggers.push(json!(instruction));
                config["OnBuild"] = Value::Array(triggers);
                meta(format!("ONBUILD {instruction}"))
            }
            Step::Copy(what) => match builder {
                Builder::Classic => format!("/bin/sh -c #(nop) COPY file:3f1c9a in {what} "),
                Builder::BuildKit => format!("COPY {what} /app/ # buildkit"),
            },
        };
        commands.push(command);
    }
    let inspect = json!([{
        "Id": "sha256:1f0c7b0f0ad6c3f3b7c5f9cf8f0b1d5be5f2e6f8c0a9d3b5e7f1a2c4d6e8f0a1",
        "RepoTags": [format!("{name}:1")],
        "RepoDigests": [],
        "Config": config,
        "RootFS": {"Type": "layers", "Layers": ["sha256:aa"]},
    }]);
    let lines = commands.iter().rev().map(|command| {
        json!({"ID": "<missing>", "CreatedBy": command, "CreatedSince": "2 hours ago", "Size": "0B", "Comment": ""})
            .to_string()
    });
    Outputs { inspect: inspect.to_string(), history: lines.collect::<Vec<_>>().join("\n") }
}

/// Joins the words of a list: with spaces as the classic builder does, or as JSON with commas as BuildKit
/// does.
fn listed(words: &[String], builder: Builder) -> String {
    let quoted: Vec<String> = words.iter().map(|word| json!(word).to_string()).collect();
    format!("[{}]", quoted.join(if builder == Builder::Classic { " " } else { "," }))
}
