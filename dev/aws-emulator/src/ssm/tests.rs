//! Tests of the operations that keyturn's own tests do not use, and of requests that AWS refuses.

use chrono::Utc;
use serde_json::{Value, json};

use super::{Request, Ssm, call};

#[derive(Default)]
struct World {
    ssm: Ssm,
}

impl World {
    fn call_stale(&mut self, operation: &str, body: &Value, stale_by: usize) -> Result<Value, String> {
        let body = body.to_string();
        let request = Request {
            operation,
            region: "us-east-1",
            access_key: "AKIATEST",
            body: body.as_bytes(),
            now: Utc::now(),
            stale_by,
        };
        call(&mut self.ssm, &request).map_err(|error| error.code)
    }

    fn call(&mut self, operation: &str, body: &Value) -> Result<Value, String> {
        self.call_stale(operation, body, 0)
    }

    fn with(names: &[&str]) -> Self {
        let mut world = Self::default();
        for name in names {
            let body = json!({"Name": name, "Value": "secret", "Type": "SecureString"});
            world.call("PutParameter", &body).unwrap();
        }
        world
    }

    fn overwrite(&mut self, name: &str, value: &str) {
        let body = json!({"Name": name, "Value": value, "Overwrite": true});
        self.call("PutParameter", &body).unwrap();
    }
}

fn names(answer: &Value) -> Vec<&str> {
    answer["Parameters"].as_array().unwrap().iter().map(|p| p["Name"].as_str().unwrap()).collect()
}

#[test]
fn by_path_lists_what_lies_below_page_by_page() {
    let mut world = World::with(&["/a", "/a/1", "/a/2", "/a/3", "/a/b/4", "/ab/5"]);
    let body = json!({"Path": "/a", "Recursive": true, "MaxResults": 3});
    let first = world.call("GetParametersByPath", &body).unwrap();
    assert_eq!(names(&first), ["/a/1", "/a/2", "/a/3"]);
    let body = json!({"Path": "/a", "Recursive": true, "MaxResults": 3, "NextToken": first["NextToken"]});
    let second = world.call("GetParametersByPath", &body).unwrap();
    assert_eq!((names(&second), second.get("NextToken")), (vec!["/a/b/4"], None));
    let flat = world.call("GetParametersByPath", &json!({"Path": "/a"})).unwrap();
    assert_eq!(names(&flat), ["/a/1", "/a/2", "/a/3"]);
}

#[test]
fn an_undecrypted_value_tells_nothing() {
    let mut world = World::with(&["/a"]);
    let shown = world.call("GetParameter", &json!({"Name": "/a"})).unwrap();
    assert_ne!(shown["Parameter"]["Value"], "secret");
    let decrypted = world.call("GetParameter", &json!({"Name": "/a", "WithDecryption": true})).unwrap();
    assert_eq!(decrypted["Parameter"]["Value"], "secret");
}

#[test]
fn several_are_read_and_deleted_at_once_and_missing_ones_are_named() {
    let mut world = World::with(&["/a", "/b"]);
    let read = world.call("GetParameters", &json!({"Names": ["/a", "/x", "/b:9"]})).unwrap();
    assert_eq!((names(&read), &read["InvalidParameters"]), (vec!["/a"], &json!(["/x", "/b:9"])));
    let deleted = world.call("DeleteParameters", &json!({"Names": ["/a", "/x"]})).unwrap();
    assert_eq!(deleted, json!({"DeletedParameters": ["/a"], "InvalidParameters": ["/x"]}));
    assert_eq!(world.call("GetParameter", &json!({"Name": "/a"})), Err("ParameterNotFound".into()));
}

#[test]
fn a_label_sits_on_one_version_and_names_it() {
    let mut world = World::with(&["/a"]);
    world.overwrite("/a", "second");
    for (version, labels) in [(1, json!(["live"])), (2, json!(["live", "1st", "aws-x"]))] {
        let body = json!({"Name": "/a", "ParameterVersion": version, "Labels": labels});
        world.call("LabelParameterVersion", &body).unwrap();
    }
    let live = world.call("GetParameter", &json!({"Name": "/a:live"})).unwrap();
    assert_eq!(live["Parameter"]["Version"], 2);
    let missing = world.call("GetParameter", &json!({"Name": "/a:1st"}));
    assert_eq!(missing, Err("ParameterVersionNotFound".into()), "labels do not begin with a digit");
}

#[test]
fn an_overwrite_keeps_the_description_that_it_does_not_name() {
    let mut world = World::default();
    let body = json!({"Name": "/a", "Value": "x", "Type": "String", "Description": "mine"});
    world.call("PutParameter", &body).unwrap();
    world.overwrite("/a", "y");
    let described = world.call("DescribeParameters", &json!({})).unwrap();
    assert_eq!(described["Parameters"][0]["Description"], "mine");
}

#[test]
fn a_stale_read_goes_back_over_overwrites_creations_and_deletions() {
    let mut world = World::with(&["/a", "/b"]);
    world.overwrite("/a", "new");
    world.call("DeleteParameter", &json!({"Name": "/b"})).unwrap();
    let as_of = |world: &mut World, writes| {
        let described = world.call_stale("DescribeParameters", &json!({}), writes).unwrap();
        let listed = described["Parameters"].as_array().unwrap().iter();
        listed.map(|p| format!("{}:{}", p["Name"].as_str().unwrap(), p["Version"])).collect::<Vec<_>>()
    };
    assert_eq!(as_of(&mut world, 0), ["/a:2"]);
    assert_eq!(as_of(&mut world, 1), ["/a:2", "/b:1"]);
    assert_eq!(as_of(&mut world, 2), ["/a:1", "/b:1"]);
    assert_eq!(as_of(&mut world, 3), ["/a:1"]);
    assert_eq!(as_of(&mut world, 99), Vec::<String>::new());
}

#[test]
fn what_aws_refuses_is_refused() {
    let eleven: Vec<String> = (0..11).map(|n| format!("/{n}")).collect();
    let filter = |key: &str, option: &str, values: Value| json!({"ParameterFilters": [{"Key": key, "Option": option, "Values": values}]});
    let cases = [
        ("PutParameter", json!({"Name": "/new", "Value": "x"}), "ValidationException"),
        ("PutParameter", json!({"Name": "/a", "Value": "x", "Type": "String"}), "ParameterAlreadyExists"),
        (
            "PutParameter",
            json!({"Name": "/a", "Value": "x", "Type": "String", "Overwrite": true}),
            "HierarchyTypeMismatchException",
        ),
        (
            "PutParameter",
            json!({"Name": "/a", "Value": "x", "Overwrite": true, "Tags": []}),
            "ValidationException",
        ),
        (
            "PutParameter",
            json!({"Name": "/s", "Value": "x", "Type": "String", "KeyId": "alias/aws/ssm"}),
            "ValidationException",
        ),
        ("PutParameter", json!({"Name": "/a", "Value": "x", "Unknown": 1}), "SerializationException"),
        ("GetParameters", json!({"Names": eleven}), "ValidationException"),
        ("GetParameters", json!({"Names": []}), "ValidationException"),
        ("GetParametersByPath", json!({"Path": "a"}), "ValidationException"),
        ("GetParametersByPath", json!({"Path": "/a", "MaxResults": 11}), "ValidationException"),
        ("GetParametersByPath", json!({"Path": "/a", "NextToken": "?"}), "InvalidNextToken"),
        ("GetParameterHistory", json!({"Name": "/a", "MaxResults": 51}), "ValidationException"),
        ("GetParameterHistory", json!({"Name": "/a", "NextToken": "?"}), "InvalidNextToken"),
        ("GetParameterHistory", json!({"Name": "/x"}), "ParameterNotFound"),
        ("DescribeParameters", json!({"MaxResults": 51}), "ValidationException"),
        ("DescribeParameters", json!({"NextToken": "?"}), "InvalidNextToken"),
        ("DescribeParameters", filter("Colour", "Equals", json!(["red"])), "InvalidFilterKey"),
        ("DescribeParameters", filter("Path", "Equals", json!(["/a"])), "InvalidFilterOption"),
        ("DescribeParameters", filter("Path", "Recursive", json!(["a"])), "InvalidFilterValue"),
        ("DescribeParameters", filter("Name", "Equals", json!([])), "InvalidFilterValue"),
        ("DescribeParameters", filter("Name", "Equals", json!(vec!["/a"; 51])), "InvalidFilterValue"),
        ("DeleteParameter", json!({"Name": "/x"}), "ParameterNotFound"),
        ("GetParameter", json!({"Name": "/a:7"}), "ParameterVersionNotFound"),
        ("GetServiceSetting", json!({}), "UnknownOperationException"),
        ("StartSession", json!({}), "UnknownOperationException"),
    ];
    for (operation, body, code) in cases {
        let mut world = World::with(&["/a"]);
        assert_eq!(world.call(operation, &body), Err(code.to_owned()), "{operation} {body}");
    }
}
