//! Users log in through the edge, and nothing but the login is open there.

use serde_json::json;

use crate::harness::http::{get, post, request};
use crate::harness::{shared, until};

const PASSWORD: &str = "correct-horse-battery";

#[test]
fn a_user_logs_in_through_the_edge_and_its_token_counts_there_until_it_is_removed() {
    let sluice = shared();
    let user = "edge-login";
    let path = format!("/auth/users/{user}");
    let wish = json!({ "password": PASSWORD, "roles": ["admin"] });
    for (method, path) in [("PUT", path.as_str()), ("GET", "/auth/users"), ("GET", "/auth/verify")] {
        request(method, sluice.edge(), path).json(&wish).send().problem(401, "invalid_token");
    }
    get(sluice.edge(), "/auth/bootstrap").send().problem(404, "no_route");
    request("PUT", sluice.edge(), &path).token(sluice.admin()).json(&wish).send().expect(201);

    let login = |password: &str| {
        let body = json!({ "username": user, "password": password });
        post(sluice.edge(), "/auth/login").json(&body).send()
    };
    let wrong = login("wrong-password").problem(401, "invalid_token");
    assert_eq!(wrong["detail"], json!("the name or the password is wrong"));
    let session = login(PASSWORD).expect(200).json();
    assert_eq!((&session["user"], &session["roles"]), (&json!(user), &json!(["admin"])));
    let token = session["token"].as_str().unwrap();
    get(sluice.edge(), "/api/data/symbols").token(token).send().expect(200);
    let verified = get(sluice.edge(), "/auth/verify").token(token).send().expect(200).json();
    assert_eq!(verified["service_name"], json!(format!("user:{user}")));
    let again = post(sluice.edge(), "/auth/refresh").token(token).json(&json!({})).send().expect(200).json();
    let again = again["token"].as_str().unwrap();

    request("DELETE", sluice.edge(), &path).token(sluice.admin()).send().expect(204);
    for token in [token, again] {
        until("the edge refuses the token of a removed user", || {
            (get(sluice.edge(), "/api/data/symbols").token(token).send().status == 401).then_some(())
        });
    }
    let audit = std::fs::read_to_string(sluice.data_dir.join("audit/vault.jsonl")).unwrap();
    let log = std::fs::read_to_string(sluice.data_dir.with_extension("log")).unwrap();
    assert!(audit.contains(&format!("auth/users/{user}")));
    for text in [audit, log] {
        assert!(!text.contains(PASSWORD) && !text.contains(token));
    }
}
