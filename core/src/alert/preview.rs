//! What another file of routes would change, without what it says: addresses of webhooks are often secrets.

use std::collections::{BTreeMap, BTreeSet};

use super::routes::{Route, Routes};
use crate::view::{Change, RoutePreview};

/// By name, every route that there is or would be.
pub fn preview(now: &Routes, next: &Routes) -> Vec<RoutePreview> {
    let by_name = |routes: &'_ Routes| -> BTreeMap<String, Route> {
        routes.routes.iter().map(|route| (route.name.clone(), route.clone())).collect()
    };
    let (now, next) = (by_name(now), by_name(next));
    let names: BTreeSet<&String> = now.keys().chain(next.keys()).collect();
    let one = |name: &String| {
        let (change, fields) = match (now.get(name), next.get(name)) {
            (Some(before), Some(after)) if before == after => (Change::Unchanged, Vec::new()),
            (Some(before), Some(after)) => (Change::Update, before.differences(after)),
            (None, _) => (Change::Create, Vec::new()),
            (Some(_), None) => (Change::Withdraw, Vec::new()),
        };
        let fields = fields.into_iter().map(str::to_owned).collect();
        RoutePreview { name: name.clone(), change, fields }
    };
    names.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_is_compared_by_its_name_and_its_fields_are_named() {
        let now = "routes: [{name: a, webhook: 'https://x/1', tokenFile: /t, watchdog: true}, {name: b, webhook: 'https://x'}, \
                   {name: c, alertmanager: 'https://x'}]";
        let next = "routes: [{name: d, webhook: 'https://x'}, {name: b, webhook: 'https://x'}, \
                    {name: a, alertmanager: 'https://x/1', tokenFile: /t, match: {kind: Check}}]";
        let routes = |text| Routes::parse(text).unwrap();
        let shown: Vec<(String, Change, String)> = preview(&routes(now), &routes(next))
            .into_iter()
            .map(|RoutePreview { name, change, fields }| (name, change, fields.join(",")))
            .collect();
        let expected = [
            ("a", Change::Update, "alertmanager,webhook,match,watchdog"),
            ("b", Change::Unchanged, ""),
            ("c", Change::Withdraw, ""),
            ("d", Change::Create, ""),
        ];
        assert_eq!(shown, expected.map(|(name, change, fields)| (name.to_owned(), change, fields.to_owned())));
        // Every field that can be written is compared.
        let all =
            "routes: [{name: a, webhook: 'https://y', tokenFile: /u, caFile: /c, secretFile: /s, match: {check: x}}]";
        let fields = preview(&routes(now), &routes(all))[0].fields.join(",");
        assert_eq!(fields, "webhook,tokenFile,caFile,secretFile,match,watchdog");
    }
}
