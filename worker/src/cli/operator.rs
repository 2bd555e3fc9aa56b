//! Who gives a command, as the audit log names them.

use std::os::unix::fs::MetadataExt;

use mdl::telemetry::host_name;
use serde_json::{Value, json};

/// What Linux says of a process that nobody has signed in for.
const NOBODY: u32 = u32::MAX;

/// The operating system's user and the host; also who had signed in there, if they have become another user since, as by sudo.
pub fn operator() -> Value {
    let user = std::fs::metadata("/proc/self").ok().map(|process| process.uid());
    let login: Option<u32> = std::fs::read_to_string("/proc/self/loginuid").ok().and_then(|text| text.trim().parse().ok());
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut operator = json!({ "user": user.map(|user| name(&users, user)), "host": host_name() });
    if let Some(login) = login.filter(|login| *login != NOBODY && Some(*login) != user) {
        operator["loginUser"] = json!(name(&users, login));
    }
    operator
}

/// The name of a user, or the number of one that is not in the file.
fn name(users: &str, user: u32) -> String {
    let number = user.to_string();
    let line = users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields.get(2) == Some(&&*number));
    line.map_or(number.clone(), |fields| fields[0].to_owned())
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn users_have_names() {
        let users = "root:x:0:0:root:/root:/bin/bash\nanna:x:1000:1000::/home/anna:/bin/sh\n";
        assert_eq!([0, 1000, 100].map(|user| name(users, user)), ["root", "anna", "100"]);
    }
}
