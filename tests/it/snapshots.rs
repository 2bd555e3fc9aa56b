//! What is committed says what the programs say.

use mdl::instruments;
use mdl_tests::root;

#[test]
fn schema_graphql_is_what_the_server_serves() {
    let committed = std::fs::read_to_string(root().join("schema.graphql")).unwrap();
    assert!(committed.trim() == mdl_api::graphql::schema::sdl().trim(), "run: target/debug/mdl-api schema > schema.graphql");
}

#[test]
fn the_settings_are_documented() {
    let documented = std::fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let settings = mdl::config::reference();
    assert!(
        documented.contains(settings.trim()),
        "run: target/debug/mdl-api settings, and put what it prints into docs/configuration.md"
    );
}

#[test]
fn the_instruments_are_documented() {
    let documented = std::fs::read_to_string(root().join("docs/operations/instruments.md")).unwrap();
    for (name, _, meaning) in instruments::ALL {
        assert!(documented.contains(&format!("| `{name}` |")), "docs/operations/instruments.md lacks {name}");
        assert!(documented.contains(meaning), "docs/operations/instruments.md says something else of {name}");
    }
    for word in documented.split('`').filter(|word| word.starts_with("mdl_")) {
        assert!(instruments::ALL.iter().any(|(name, ..)| *name == word), "{word} is documented and does not exist");
    }
}

#[test]
fn kinds_of_jobs_and_schedules_are_documented() {
    let documented = std::fs::read_to_string(root().join("docs/operations/jobs.md")).unwrap();
    for table in [mdl_worker::jobs::registry().reference(), mdl_worker::schedule::reference()] {
        assert!(documented.contains(&table), "docs/operations/jobs.md is to have\n{table}");
    }
}

#[test]
fn every_page_of_the_docs_is_in_the_summary() {
    let docs = root().join("docs");
    let summary = std::fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
    let mut folders = vec![docs.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&docs).unwrap().display().to_string();
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".md") && name != "SUMMARY.md" {
                assert!(summary.contains(&format!("({name})")), "docs/SUMMARY.md lacks {name}");
            }
        }
    }
    for link in summary.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        assert!(docs.join(link).exists(), "docs/SUMMARY.md names {link}, which is not there");
    }
}
