//! Definitions: read, write, and see beforehand what a write would do.

pub mod preview;

use active_monitor_core::definition::FleetHealthCheck;
use active_monitor_core::definition::validate::validate;
use active_monitor_core::gitops::Kind;
use active_monitor_core::view::{DefinitionView, Page, Preview, Problem};
use axum::Extension;
use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Api;
use super::extract::{DefinitionBody, Expects, PageSize, Path, Query, page};
use super::problem::ApiError;
use super::unchanged::Version;
use crate::auth::{Operator, Viewer};
use crate::expected::version;

/// Which page of the definitions is asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DefinitionFilter {
    /// Definitions in the page.
    #[serde(default)]
    #[param(value_type = u32, required = false, minimum = 1, maximum = 10000, default = 1000)]
    limit: PageSize,
    /// Only definitions after the one with this name: `next` of the page before.
    after: Option<String>,
}

/// Definitions by name, page by page.
#[utoipa::path(
    get, path = "/api/v1/definitions", operation_id = "listDefinitions", tag = "definitions", params(DefinitionFilter),
    responses(
        (status = 200, body = Page<DefinitionView>),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list(
    _: Viewer,
    State(api): State<Api>,
    Query(DefinitionFilter { limit, after }): Query<DefinitionFilter>,
) -> axum::Json<Page<DefinitionView>> {
    let mut origins = api.app.source.origins(Kind::FleetHealthCheck);
    let mut resources = api.app.source.resources();
    let definitions = api.app.fleet.definitions();
    let all = definitions.iter().map(|(name, view)| (name.clone(), view));
    let (views, next) = page(all, after.as_ref(), limit);
    let items = views.into_iter().map(|view| DefinitionView {
        git: origins.remove(&view.name),
        resource: resources.remove(&view.name),
        ..(**view).clone()
    });
    axum::Json(Page { items: items.collect(), next })
}

/// One definition and what became of it.
#[utoipa::path(
    get, path = "/api/v1/definitions/{name}", operation_id = "readDefinition", tag = "definitions", params(("name", description = "Its name")),
    responses(
        (status = 200, body = DefinitionView),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn read(_: Viewer, State(api): State<Api>, Path(name): Path<String>) -> Result<Shown, ApiError> {
    match api.app.fleet.definitions().get(&name) {
        Some(definition) => Ok(shown(&api, definition)),
        None => Err(ApiError::NotFound(format!("there is no definition {name}"))),
    }
}

/// A definition with its version.
type Shown = (Extension<Version>, axum::Json<DefinitionView>);

fn shown(api: &Api, view: &DefinitionView) -> Shown {
    let git = api.app.source.origins(Kind::FleetHealthCheck).remove(&view.name);
    let resource = api.app.source.resources().remove(&view.name);
    (Extension(Version(version(&view.definition))), axum::Json(DefinitionView { git, resource, ..view.clone() }))
}

/// Adds or replaces a definition.
#[utoipa::path(
    put, path = "/api/v1/definitions/{name}", operation_id = "putDefinition", tag = "definitions", params(("name", description = "Its name")),
    request_body(
        content((FleetHealthCheck = "application/json"), (String = "application/yaml")),
        description = "A FleetHealthCheck; its metadata.name is the name in the path"
    ),
    responses(
        (status = 200, body = DefinitionView, description = "Replaced"),
        (status = 201, body = DefinitionView, description = "New"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It is Git's or a resource's"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn put(
    Operator(me): Operator,
    State(api): State<Api>,
    Path(name): Path<String>,
    Expects(expected): Expects,
    DefinitionBody(definition): DefinitionBody,
) -> Result<(StatusCode, Shown), ApiError> {
    validate(&definition)?;
    if definition.metadata.name != name {
        let own = &definition.metadata.name;
        return Err(ApiError::Invalid(format!("metadata.name: is {own}, and must be {name} as in the path")));
    }
    let _held = api.unowned(Kind::FleetHealthCheck, &name).await?;
    let (view, is_new) = api.app.fleet.put_definition_if(definition, expected).await?;
    api.audit(&me.name, "definition.put", &name).await?;
    Ok((if is_new { StatusCode::CREATED } else { StatusCode::OK }, shown(&api, &view)))
}

/// Deletes a definition and withdraws it from the clusters.
#[utoipa::path(
    delete, path = "/api/v1/definitions/{name}", operation_id = "deleteDefinition", tag = "definitions", params(("name", description = "Its name")),
    responses(
        (status = 204),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It is Git's or a resource's"),
    )
)]
pub async fn delete(
    Operator(me): Operator,
    State(api): State<Api>,
    Path(name): Path<String>,
    Expects(expected): Expects,
) -> Result<StatusCode, ApiError> {
    let _held = api.unowned(Kind::FleetHealthCheck, &name).await?;
    api.app.fleet.delete_definition_if(&name, expected).await?;
    api.audit(&me.name, "definition.delete", &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a PUT would do. Changes nothing.
#[utoipa::path(
    post, path = "/api/v1/definitions/preview", operation_id = "previewDefinition", tag = "definitions",
    request_body(
        content((FleetHealthCheck = "application/json"), (String = "application/yaml")),
        description = "A FleetHealthCheck"
    ),
    responses(
        (status = 200, body = Preview),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn preview(
    _: Viewer,
    State(api): State<Api>,
    DefinitionBody(definition): DefinitionBody,
) -> Result<axum::Json<Preview>, ApiError> {
    validate(&definition)?;
    let current = api.app.fleet.definitions().get(&definition.metadata.name).cloned();
    Ok(axum::Json(preview::preview(&definition, current.as_deref(), &api.app.fleet.view())))
}
