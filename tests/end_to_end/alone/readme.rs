//! Tests README's "On your own cluster": it reads the file and runs it block by block, unchanged. The reader's own
//! registry, host and key are replaced by the world's, as [`own`] declares; everything else runs as it is written.

use std::path::Path;

use crate::controller;
use crate::examples;
use crate::project::Project;
use crate::ssm;
use crate::world::{run, try_run, variable};

const SECTION: &str = "## On your own cluster";
const NAMESPACE: &str = "musehub-production";

/// Steps that are not run here, and the reasons.
const ELSEWHERE: [(&str, &str); 1] = [(
    "**1. The image.**",
    "the world has loaded keyturn's image into the node, which needs no registry for it",
)];

/// The command that a reader ends with Ctrl-C once it shows the expected line.
const WATCH: &str = "kubectl get managedsecrets -n musehub-production -w\n";

/// A fenced block and its place.
struct Block {
    /// First words of the step, in bold: `**3. The controller.**`.
    step: String,
    language: String,
    /// The file name in front of the block: `values.yaml`.
    file: Option<String>,
    text: String,
    line: usize,
}

/// Returns the blocks of the section, in order.
fn blocks(readme: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut step, mut prose, mut inside, mut here) = (String::new(), "", false, false);
    for (number, line) in (1..).zip(readme.lines()) {
        if let Some(language) = line.strip_prefix("```") {
            inside = !inside;
            if inside && here {
                let file = prose.strip_suffix("`:").and_then(|text| text.rsplit('`').next());
                let file = file.filter(|name| !name.contains('/'));
                blocks.push(Block {
                    step: step.clone(),
                    language: language.to_owned(),
                    file: file.map(str::to_owned),
                    text: String::new(),
                    line: number,
                });
                prose = "";
            }
        } else if inside && here {
            let text = &mut blocks.last_mut().unwrap().text;
            text.push_str(line);
            text.push('\n');
        } else if line.starts_with("## ") && !inside {
            here = line == SECTION;
        } else if !line.is_empty() && !inside {
            prose = line;
            if let Some((bold, _)) = line.strip_prefix("**").and_then(|rest| rest.split_once("**")) {
                step = format!("**{bold}**");
            }
        }
    }
    blocks
}

/// Returns the reader's own texts and their replacements.
fn own(image: &str) -> Vec<(&'static str, String)> {
    let (repository, tag) = image.rsplit_once(':').unwrap();
    vec![
        ("registry.example.com/keyturn, tag: \"0.1.0\"", format!("{repository}, tag: \"{tag}\"")),
        ("musehub.example", variable("KEYTURN_HOST")),
        // Added to README's values, which take precedence: the world's SSM with its credentials, and short times.
        ("--values values.yaml", "--values world.yaml --values values.yaml".to_owned()),
        (WATCH, format!("{} >watched & watch=$!\nshown 'True  *Published'\n", WATCH.trim_end())),
    ]
}

/// Waits until the file `watched` shows a text, and ends the watch that writes it.
const SHOWN: &str = r#"shown() {
  local deadline=$((SECONDS + 240))
  until grep -q "$1" watched; do
    if ((SECONDS > deadline)); then
      echo "never shown: $1" >&2 && cat watched >&2
      exit 1
    fi
    sleep 0.3
  done
  kill $watch
}
"#;

/// Prepares what a reader has before the first step: a checkout, the key of the host's account, and a product whose
/// other secrets are in SSM.
fn what_the_reader_has(folder: &Path, world: &Path) {
    let charts = concat!(env!("CARGO_MANIFEST_DIR"), "/charts");
    std::os::unix::fs::symlink(charts, folder.join("charts")).unwrap();
    std::fs::copy(world, folder.join("world.yaml")).unwrap();
    std::fs::copy(variable("KEYTURN_HOST_KEY"), folder.join("musehub-key.pem")).unwrap();
    // The product checks that this is a Fernet key.
    ssm::put("/musehub/production/WEBHOOK_SECRET_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
    ssm::put("/musehub/production/DB_PASSWORD", "from-before-keyturn");
}

/// Lets AWS's own checks validate a policy.
fn is_a_policy(policy: &str) {
    let at = ["--endpoint-url", &variable("AWS_ENDPOINT_URL_SSM")];
    let name = format!("readme-{}", std::process::id());
    let create =
        ["iam", "create-policy", "--policy-name", &name, "--query", "Policy.Arn", "--output", "text"];
    let arn = run("aws", &[&create[..], &["--policy-document", policy], &at].concat());
    run("aws", &[&["iam", "delete-policy", "--policy-arn", &arn][..], &at].concat());
}

/// The way in which a reader uses a block.
enum Use<'a> {
    Run,
    SaveAs(&'a str),
    GiveToAws,
}

impl Block {
    fn place(&self) -> String {
        format!("README.md:{}, {}", self.line, self.step)
    }

    fn usage(&self) -> Use<'_> {
        match (self.language.as_str(), &self.file) {
            ("console", None) => Use::Run,
            ("yaml", Some(file)) => Use::SaveAs(file),
            ("json", None) => Use::GiveToAws,
            (language, _) => {
                panic!(
                    "{}: it is not known how a reader uses this {language} block: teach this test",
                    self.place()
                )
            }
        }
    }

    fn follow(&self, folder: &Path) {
        let (place, text) = (self.place(), &self.text);
        println!("{place}\n{text}");
        match self.usage() {
            Use::SaveAs(file) => std::fs::write(folder.join(file), text).unwrap(),
            Use::GiveToAws => is_a_policy(text),
            Use::Run => {
                let script = format!("cd {}\n{SHOWN}\n{text}", folder.display());
                // With the world's short times, everything is faster than README allows for.
                match try_run("timeout", &["300", "bash", "-euo", "pipefail", "-c", &script]) {
                    Ok(said) => println!("{said}"),
                    Err(problem) => {
                        let objects = ["describe", "managedsecrets,dockerhosts", "-n", NAMESPACE];
                        panic!("{place}: {problem}\n{}", try_run("kubectl", &objects).unwrap_or_default())
                    }
                }
            }
        }
    }
}

fn readme() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap()
}

/// Needs no world.
#[test]
fn every_block_of_the_path_has_a_use() {
    let readme = readme();
    let blocks = blocks(&readme);
    let saved: Vec<&str> = blocks
        .iter()
        .filter_map(|block| match block.usage() {
            Use::SaveAs(file) => Some(file),
            Use::Run | Use::GiveToAws => None,
        })
        .collect();
    assert_eq!(saved, ["values.yaml"]);
    let mut steps: Vec<&str> = blocks.iter().map(|block| block.step.as_str()).collect();
    steps.dedup();
    assert_eq!(steps.len(), 5, "{steps:?}");
}

#[test]
#[ignore = "needs the world"]
fn the_path_to_a_first_rotation_works_as_it_is_written() {
    let alone = Project::alone_without_host("readme");
    // A reader has only the grant that README tells them to create.
    run("kubectl", &["delete", "rotationgrant", &alone.name]);
    examples::empty();
    let world = controller::Uninstalled::take();
    let folder = tempfile::tempdir().unwrap();
    what_the_reader_has(folder.path(), world.values());

    let own = own(world.image());
    let mut used = vec![false; own.len()];
    let mut elsewhere = Vec::new();
    let mut followed = 0;
    for mut block in blocks(&readme()) {
        if let Some((step, _)) = ELSEWHERE.iter().find(|(step, _)| *step == block.step) {
            elsewhere.push(*step);
            continue;
        }
        for ((written, here), used) in own.iter().zip(&mut used) {
            *used |= block.text.contains(written);
            block.text = block.text.replace(written, here);
        }
        block.follow(folder.path());
        followed += 1;
    }
    assert!(followed >= 6, "only {followed} blocks were found in README's {SECTION:?}");
    for ((written, _), used) in own.iter().zip(used) {
        assert!(used, "README does not say {written:?} any more: take it out of the table");
    }
    for (step, why) in ELSEWHERE {
        assert!(elsewhere.contains(&step), "README has no block of {step} any more ({why})");
    }

    let path = "/musehub/production/RUNNER_TOKEN";
    assert_eq!(ssm::version(path), Some(2), "created, and rotated once");
    let running = run("docker", &["exec", "musehub", "printenv", "RUNNER_TOKEN"]);
    assert_eq!(ssm::value(path).as_deref(), Some(running.as_str()), "the container runs what is published");
    examples::empty();
}
