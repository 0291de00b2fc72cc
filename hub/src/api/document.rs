//! What the OpenAPI document says of every call alike, so that no handler has to.

use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::Type;
use utoipa::openapi::{Content, Object, OpenApi, Ref, RefOr, Required, Response, ResponseBuilder, Schema};

/// The calls that change what people write: those whose handlers take `Expects`.
const CONDITIONAL: [&str; 5] = ["putDefinition", "deleteDefinition", "putWindow", "removeWindow", "patchCluster"];

/// Adds what the handlers' own descriptions leave out.
pub(super) fn complete(document: &mut OpenApi) {
    open_flattened(document);
    for item in document.paths.paths.values_mut() {
        let PathItem { get, put, post, delete, patch, .. } = item;
        get.iter_mut().for_each(add_errors);
        for operation in [put, post, delete, patch].into_iter().flatten() {
            if CONDITIONAL.iter().any(|id| operation.operation_id.as_deref() == Some(id)) {
                add_conditions(operation);
            }
            add_errors(operation);
            let foreign = problem("Not for this token, or a page of another origin asks for it");
            operation.responses.responses.entry("403".to_owned()).or_insert(RefOr::T(foreign));
        }
    }
}

/// What is flattened into another object must not refuse the other's fields. The hub refuses unknown fields all the same.
fn open_flattened(document: &mut OpenApi) {
    let schema = document.components.as_mut().and_then(|components| components.schemas.get_mut("WindowSpec"));
    if let Some(RefOr::T(Schema::Object(spec))) = schema {
        spec.additional_properties = None;
    }
}

fn add_conditions(operation: &mut Operation) {
    let parameters = operation.parameters.get_or_insert_default();
    for (name, means) in [
        ("If-Match", "Only where it is as in the answer with this ETag; `*`: only where there is one"),
        ("If-None-Match", "`*`: only where there is none. No other value is known"),
    ] {
        let text = Object::with_type(Type::String);
        let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Header).required(Required::False);
        parameters.push(RefOr::T(parameter.description(Some(means)).schema(Some(text)).build()));
    }
    let response = problem("It is not as If-Match or If-None-Match expects: nothing was changed");
    operation.responses.responses.insert("412".to_owned(), RefOr::T(response));
}

fn add_errors(operation: &mut Operation) {
    let has_body = operation.request_body.is_some();
    let has_parameters = operation.parameters.as_ref().is_some_and(|parameters| !parameters.is_empty());
    let needs_token = operation.responses.responses.contains_key("401");
    for (applies, status, means) in [
        (has_body || has_parameters, "400", "It cannot be read: which part, and what is allowed"),
        (has_body, "413", "The body is larger than 1 MiB"),
        (has_body, "415", "The body is of another type than the call takes"),
        (
            needs_token,
            "429",
            "More calls than a token may make, or too many failed logins; Retry-After says how long to wait",
        ),
        (
            true,
            "503",
            "The hub stops, or another replica is at what this would change: then Retry-After says how long to wait",
        ),
        (true, "504", "It took too long"),
    ] {
        if applies {
            let responses = &mut operation.responses.responses;
            responses.entry(status.to_owned()).or_insert_with(|| RefOr::T(problem(means)));
        }
    }
}

fn problem(means: &str) -> Response {
    let content = Content::new(Some(RefOr::Ref(Ref::from_schema_name("Problem"))));
    ResponseBuilder::new().description(means).content("application/problem+json", content).build()
}
