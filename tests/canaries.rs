//! Known secrets go through a whole instance, also where they do not belong; afterwards nobody finds one of them.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::http::{Answer, get, post, request};
use crate::harness::{Instance, Up, children};

/// What is never seen in plain, and where it went in.
struct Canaries(Vec<(&'static str, String)>);

impl Canaries {
    /// One that is told apart from everything else.
    fn hatch(&mut self, what: &'static str) -> String {
        let text = format!("canary-{:04x}-{}", 0x7c00 + self.0.len(), "q9z".repeat(9));
        self.0.push((what, text.clone()));
        text
    }

    fn keep(&mut self, what: &'static str, text: &Value) -> String {
        let text = text.as_str().unwrap_or_else(|| panic!("{what}: {text}")).to_owned();
        self.0.push((what, text.clone()));
        text
    }

    /// The name of one that is in these bytes.
    fn found_in(&self, bytes: &[u8]) -> Option<&'static str> {
        let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        self.0.iter().find(|(_, text)| has(text)).map(|(what, _)| *what)
    }
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// Shows every secret at the right door, and answers that refuse it at a wrong one.
fn sing(sluice: &Instance, canaries: &mut Canaries, falco: &str) -> Vec<Answer> {
    let (edge, vault, admin) = (sluice.edge(), sluice.vault(), sluice.admin());
    let mut refusals = Vec::new();
    let value = canaries.hatch("value of a secret");
    let body = json!({ "data": { "password": value } });
    request("PUT", edge, "/secrets/services/bot/db").token(admin).json(&body).send().expect(200);
    for base in [edge, vault] {
        refusals.push(request("PUT", base, "/secrets/services/bot/db").json(&body).send());
        refusals.push(request("PUT", base, "/secrets/services/bot/d~b").token(admin).json(&body).send());
        let half = format!("{{\"data\":{{\"password\":\"{value}\"");
        refusals.push(
            request("PUT", base, "/secrets/services/bot/db")
                .token(admin)
                .text("application/json", half)
                .send(),
        );
        refusals.push(post(base, "/v1/secret/data/a").token(&value).json(&body).send());
    }
    let client = json!({ "client_id": "desk", "scope": "read" });
    let client = post(vault, "/oauth2/clients").token(admin).json(&client).send().expect(201).json();
    let secret = canaries.keep("secret of a client", &client["client_secret"]);
    let form = |id: &str, grant: &str| format!("grant_type={grant}&client_id={id}&client_secret={secret}");
    let ask =
        |form: String| post(vault, "/oauth2/token").text("application/x-www-form-urlencoded", form).send();
    let issued = ask(form("desk", "client_credentials")).expect(200).json();
    canaries.keep("token of a client", &issued["access_token"]);
    refusals.push(ask(form("nobody", "client_credentials")));
    refusals.push(ask(form("desk", "password")));
    refusals.push(post(vault, "/tokens/validate").token(&secret).json(&json!({ "token": 1 })).send());

    let v1 = |method: &str, path: &str, body: &Value| {
        request(method, edge, &format!("/v1/{path}")).token(admin).json(body).send()
    };
    assert!(v1("POST", "auth/approle/role/r", &json!({})).status < 300);
    let made = v1("POST", "auth/approle/role/r/secret-id", &json!({})).expect(200).json();
    let id = canaries.keep("secret id", &made["data"]["secret_id"]);
    let login = json!({ "role_id": "no such role", "secret_id": id });
    refusals.push(post(edge, "/v1/auth/approle/login").json(&login).send());
    let wrapped = json!({ "key": canaries.hatch("wrapped answer") });
    let wrap = post(edge, "/v1/sys/wrapping/wrap").token(admin).header("x-vault-wrap-ttl", "60");
    let opener = wrap.json(&wrapped).send().expect(200).json();
    let opener = canaries.keep("token of a wrapping", &opener["wrap_info"]["token"]);
    refusals.push(get(edge, "/v1/secret/data/a").header("x-vault-token", &opener).send());
    assert!(v1("POST", "transit/keys/k", &json!({})).status < 300);
    // The same bytes in base64 are looked for as they are sent.
    let plain = "Y2FuYXJ5LTg4YWItdHJhbnNpdC1wbGFpbg==";
    canaries.keep("plaintext of transit", &json!(plain));
    canaries.keep("plaintext of transit, decoded", &json!("canary-88ab-transit-plain"));
    v1("POST", "transit/encrypt/k", &json!({ "plaintext": plain })).expect(200);
    refusals.push(v1("POST", "transit/encrypt/none/x", &json!({ "plaintext": plain })));
    refusals.push(v1("POST", "transit/decrypt/k", &json!({ "ciphertext": plain })));

    let password = canaries.hatch("password");
    let user = json!({ "password": password, "roles": ["admin"] });
    assert!(request("PUT", vault, "/auth/users/alice").token(admin).json(&user).send().status < 300);
    let login = |name: &str| json!({ "username": name, "password": password });
    let session = post(edge, "/auth/login").json(&login("alice")).send().expect(200).json();
    canaries.keep("token of a session", &session["token"]);
    refusals.push(post(edge, "/auth/login").json(&login("bob")).send());
    let first =
        json!({ "token": canaries.hatch("bootstrap token"), "username": "eve", "password": password });
    refusals.push(post(vault, "/auth/bootstrap").json(&first).send());
    let share = canaries.hatch("share");
    for path in ["unseal", "generate-root/update", "rekey/update"] {
        let body = json!({ "key": share, "nonce": "0192aaaa-0000-7000-8000-000000000001" });
        refusals.push(request("PUT", vault, &format!("/v1/sys/{path}")).token(admin).json(&body).send());
    }
    let issued = post(edge, "/credentials/bot").token(admin).json(&json!({})).send().expect(200).json();
    let key = issued["private_key"].as_str().unwrap().lines().nth(1).unwrap().to_owned();
    canaries.keep("private key", &json!(key));

    let alert = json!({
        "time": "2026-11-22T11:00:00.000000001Z", "rule": "Shell started by Sluice", "priority": "Critical",
        "source": "syscall", "hostname": "h", "output": "it happened", "output_fields": { "proc.name": "sh" },
    });
    let path = format!("/falco/alerts/{falco}");
    post(vault, &path).json(&alert).send().expect(202);
    // A problem names the path it is about to whoever asked there; nobody else is to see it.
    post(vault, &path).json(&json!({ "rule": 7 })).send().expect(400);
    get(vault, &path).send().expect(405);
    post(vault, &format!("{path}x")).json(&alert).send().expect(404);
    // Falco pointed at the wrong port.
    post(edge, &path).json(&alert).send().expect(404);
    refusals
}

#[test]
fn nothing_secret_is_found_in_files_logs_metrics_or_refusals() {
    let dir = tempfile::tempdir().unwrap();
    let mut canaries = Canaries(Vec::new());
    let falco = canaries.hatch("secret path of Falco");
    let shared = canaries.hatch("JWT_SECRET_KEY");
    std::fs::write(dir.path().join("falco-path"), &falco).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(dir.path().join("falco-path"), mode).unwrap();
    let conf = dir.path().join("sluice.toml");
    let text = format!("[falco]\nsecret = \"file:{}\"\n", dir.path().join("falco-path").display());
    std::fs::write(&conf, text).unwrap();
    let data = dir.path().join("data");
    let up = Up::new(&data).conf(&conf).env("JWT_SECRET_KEY", &shared).arg("--no-demo");
    let sluice = up.start();
    canaries.keep("token of the administrator", &json!(sluice.admin()));
    let refusals = sing(&sluice, &mut canaries, &falco);
    for refusal in &refusals {
        assert!((400..500).contains(&refusal.status), "{refusal:?}");
        assert_eq!(canaries.found_in(refusal.body.as_bytes()), None, "{refusal:?}");
        let head = refusal.headers.values().map(String::as_str).collect::<Vec<_>>().join("\n");
        assert_eq!(canaries.found_in(head.as_bytes()), None, "{refusal:?}");
    }
    for base in [sluice.edge(), sluice.control(), sluice.vault(), sluice.events(), sluice.calc()] {
        for path in ["/metrics", "/health"] {
            let told = get(base, path).send().body;
            assert_eq!(canaries.found_in(told.as_bytes()), None, "{base}{path}");
        }
    }
    for path in ["/events?limit=1000", "/audit?limit=1000"] {
        let told = get(sluice.edge(), path).token(sluice.admin()).send().expect(200).body;
        assert!(told.len() > 100, "{told}");
        assert_eq!(canaries.found_in(told.as_bytes()), None, "{path}");
    }
    // Where the kernel lets anybody look: what a process was started with.
    let pids: Vec<u32> = children(sluice.pid);
    assert!(pids.len() >= 4);
    for pid in pids {
        for name in ["environ", "cmdline"] {
            let Ok(bytes) = std::fs::read(format!("/proc/{pid}/{name}")) else { continue };
            assert_eq!(canaries.found_in(&bytes), None, "/proc/{pid}/{name}");
        }
    }
    sluice.stop();
    let log = data.with_extension("log");
    assert!(std::fs::metadata(&log).unwrap().len() > 1_000);
    // Given to the operator by these files, readable by him alone.
    let given = ["token", "vault-token"];
    let files = files_below(&data).into_iter().filter(|path| !given.iter().any(|name| path.ends_with(name)));
    for path in files.chain([log]).filter(|path| path.is_file()) {
        assert_eq!(canaries.found_in(&std::fs::read(&path).unwrap()), None, "{}", path.display());
    }
    assert!(canaries.0.len() >= 16);
}
