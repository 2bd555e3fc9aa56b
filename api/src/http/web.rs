//! The pages for people, as `npm run build` left them in web/dist.

use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use tower::ServiceExt;
use tower_http::services::{ServeDir, ServeFile};

use super::Server;
use super::negotiate::Media;
use super::refusal::Refusal;

/// What the pages may load and do; web/README.md says why.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Without styles, which its policy would refuse.
const NOT_BUILT: &str = "<!doctype html>\n<html lang=\"en\">\n<title>GraphiQL is not built</title>\n<h1>GraphiQL is not built</h1>\n\
     <p>The API runs; this page needs its assets. Build them with</p>\n\
     <pre>cd web &amp;&amp; npm ci &amp;&amp; npm run build</pre>\n\
     <p>and load this page again. <code>MDL_WEB_DIR</code> says where they are.</p>\n</html>\n";

/// Whether the pages' policy applies.
pub fn is_page(path: &str) -> bool {
    path == "/graphiql" || path.starts_with("/assets/")
}

pub async fn home() -> Redirect {
    Redirect::temporary("/graphiql")
}

/// The page is asked for each time; what it loads is not.
pub async fn graphiql(State(server): State<Arc<Server>>, request: Request) -> Response {
    let file = ServeFile::new(server.app.config.http.web_dir.join("graphiql.html"));
    let mut response = file.oneshot(request).await.into_response();
    if response.status() == StatusCode::NOT_FOUND {
        let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
        return (StatusCode::SERVICE_UNAVAILABLE, headers, NOT_BUILT).into_response();
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// A CSV file with every column that an import understands and an example row, for people to fill in.
pub async fn csv_template() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"metrics.csv\""),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, mdl::imports::csv_template())
}

/// Files that have a hash of their content in their name. Nothing outside the directory can be named.
pub async fn assets(directory: &Path, request: Request<Body>) -> Response {
    let files = ServeDir::new(directory).append_index_html_on_directories(false);
    let mut response = files.oneshot(request).await.into_response();
    match response.status() {
        status if status.is_success() || status == StatusCode::NOT_MODIFIED => {
            let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
            response.headers_mut().insert(header::CACHE_CONTROL, forever);
            response
        }
        StatusCode::NOT_FOUND => not_found().await,
        _ => response,
    }
}

/// Any address that is nothing.
pub async fn not_found() -> Response {
    Refusal::new(StatusCode::NOT_FOUND, "NOT_FOUND", "There is nothing at this address").respond(Media::Json)
}
