//! HTTP: the routes, and the layers around them.

mod cached;
mod caller;
mod export;
mod express;
mod graphql;
mod health;
mod lines;
mod listen;
mod live;
mod negotiate;
mod observe;
mod ops;
mod parse;
mod places;
mod refusal;
mod run;
mod serve;
mod unread;
mod upload;
mod warm;
mod web;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use mdl::App;
use mdl::tokens::Keys;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::auth::Authenticator;
use crate::cache::ResponseCache;
use crate::cache::used::Used;
use crate::documents::Documents;
use crate::graphql::executor::Executor;
use crate::graphql::schema::schema;
use crate::live::LiveConnections;
use crate::performance::Performance;
use crate::rate_limit::RateLimits;
use express::Express;
use observe::peer;

pub use serve::serve;

/// Shorter answers gain nothing from compression.
const COMPRESS_ABOVE_BYTES: u16 = 1024;
/// How long browsers may remember what CORS allows.
const PREFLIGHT_AGE: Duration = Duration::from_secs(600);

/// Where GraphQL is.
const GRAPHQL: &str = "/graphql";

/// What a request is served with.
struct Server {
    app: App,
    auth: Authenticator,
    limits: RateLimits,
    documents: Documents,
    executor: Executor,
    /// `None` when it is turned off.
    cache: Option<ResponseCache>,
    /// `None` when nobody warms.
    used: Option<Arc<Used>>,
    repeats: express::Repeats,
    performance: Arc<Performance>,
    exports: Arc<export::Exports>,
    /// Without a cache nobody else hears of changes, and the read replica must be up to date.
    _following: Option<AbortOnDropHandle<()>>,
    live: LiveConnections,
    readiness: health::Readiness,
    faults: lines::Lines,
    behind_tls: bool,
}

/// Everything on the public port. `keys` sign and check access tokens.
pub fn router(app: App, keys: impl Into<Arc<Keys>>) -> Router {
    let live = LiveConnections::new(app.clone(), CancellationToken::new());
    router_with(app, keys, live)
}

/// As [`router`], with connections that somebody else ends.
pub fn router_with(app: App, keys: impl Into<Arc<Keys>>, live: LiveConnections) -> Router {
    let keys = keys.into();
    let config = app.config.clone();
    let timeout = Duration::from_secs(config.http.request_timeout_seconds);
    let cache = ResponseCache::start(&app);
    let performance = Arc::<Performance>::default();
    let server = Arc::new(Server {
        auth: Authenticator::new(app.clone(), keys.clone()),
        limits: RateLimits::new(&config.http),
        documents: Documents::new(app.clone()),
        executor: Executor::new(schema(&config.graphql, keys, performance.clone()), config.graphql.clone(), timeout),
        _following: (cache.is_none() && app.db.has_replica()).then(|| app.versions.follow()),
        performance,
        repeats: express::Repeats::default(),
        exports: export::Exports::new(config.database.pool_size),
        used: cache.as_ref().and_then(|_| Used::start(&app)),
        cache,
        live,
        readiness: health::Readiness::default(),
        faults: lines::Lines::per_second(observe::FAULTS_PER_SECOND),
        behind_tls: config.http.public_url.as_ref().is_some_and(|url| url.scheme() == "https"),
        app,
    });

    let graphql = get(graphql::get)
        .post(graphql::post)
        .fallback(graphql::other_method)
        // The handler has limits of its own, for JSON and for uploads.
        .layer(DefaultBodyLimit::disable());
    let cors = (!config.http.cors_origins.is_empty()).then(|| cors(&config.http.cors_origins));
    let export = get(export::catalog);
    let (graphql, export) = match &cors {
        Some(cors) => (graphql.layer(cors.clone()), export.layer(cors.clone())),
        None => (graphql, export),
    };
    let assets = config.http.web_dir.join("assets");

    let routes = match &server.used {
        Some(_) => Router::new().route(mdl::warming::PATH, warm::route()),
        None => Router::new(),
    };
    let routes = routes
        .route(GRAPHQL, graphql)
        .route("/health", get(health::alive))
        .route("/health/ready", get(health::ready))
        .route("/", get(web::home))
        .route("/graphiql", get(web::graphiql))
        .route("/templates/metrics.csv", get(web::csv_template))
        .route("/export/catalog", export)
        .nest_service(
            "/assets",
            tower::service_fn(move |request| {
                let assets = assets.clone();
                async move { Ok::<_, std::convert::Infallible>(web::assets(&assets, request).await) }
            }),
        )
        .fallback(web::not_found)
        .layer(CatchPanicLayer::custom(observe::panicked))
        .layer(
            CompressionLayer::new()
                .compress_when(SizeAbove::new(COMPRESS_ABOVE_BYTES).and(NotForContentType::IMAGES).and(NotForContentType::SSE)),
        )
        .layer(from_fn_with_state(server.clone(), observe::observe))
        .with_state(server.clone());
    Router::new().fallback_service(Express::before(routes, server, cors))
}

/// Lets pages of these origins call the API. Credentials are headers that their scripts set, never cookies.
fn cors(origins: &[String]) -> CorsLayer {
    let names = |names: &[&'static str]| names.iter().map(|name| HeaderName::from_static(name)).collect::<Vec<_>>();
    // The settings have checked that they are origins.
    let origins: Vec<HeaderValue> = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST])
        // Clients have headers of their own (Apollo its name, tracers theirs), and none of them lets a page do more.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(names(&[
            "x-request-id",
            "retry-after",
            "idempotency-replayed",
            "etag",
            "age",
            "x-cache",
            "content-disposition",
        ]))
        .max_age(PREFLIGHT_AGE)
}
