//! What another file of alert routes would change.

use super::*;

#[tokio::test]
async fn a_file_of_routes_is_compared_by_names_and_fields_and_no_address_is_said() {
    let hub = Hub::start().await;
    let preview = async |hub: &Hub, text: &str| {
        hub.call(Method::POST, "/api/v1/routes/preview", VIEWER, Some(json!({"text": text}))).await
    };
    let next = "routes: [{name: a, webhook: 'https://x/new'}, {name: b, webhook: 'https://x/b'}]";
    let created = json!([{"name": "a", "change": "create"}, {"name": "b", "change": "create"}]);
    assert_eq!(preview(&hub, next).await.json(), json!({"hasFile": false, "routes": created}));

    let file = hub.directory.as_ref().unwrap().path().join("routes.yaml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write(
        "routes: [{name: a, webhook: 'https://x/s3cret'}, {name: b, webhook: 'https://x/b'}, {name: c, alertmanager: 'https://x'}]",
    );
    let hub = hub.restart().await;
    let answer = preview(&hub, next).await;
    let routes = json!([
        {"name": "a", "change": "update", "fields": ["webhook"]},
        {"name": "b", "change": "unchanged"},
        {"name": "c", "change": "withdraw"},
    ]);
    assert_eq!(answer.json(), json!({"hasFile": true, "routes": routes}));
    assert!(!answer.text.contains("s3cret"));

    let wrong = preview(&hub, "routes: [{name: a}]").await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(wrong.problem().starts_with("routes[0].alertmanager: give the address"), "{}", wrong.text);
    write("routes: [{name: a, webhook: s3cret}]");
    let wrong = preview(&hub, next).await;
    assert_eq!((wrong.status, wrong.text.contains("s3cret")), (StatusCode::CONFLICT, false));
    assert!(wrong.problem().contains("its log says why"));
}
