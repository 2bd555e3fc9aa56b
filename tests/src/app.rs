//! The product with a database, Redis names and files of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use mdl::actor::{Actor, Role};
use mdl::config::Config;
use mdl::tenants::Tenant;
use mdl::tokens::Keys;
use mdl::users::NewUser;
use mdl::{App, tenants, users};
use mdl_worker::jobs::Registry;
use tokio_util::sync::CancellationToken;

use crate::{Client, TestDatabase, variable};

/// The password of every user of a test.
pub const PASSWORD: &str = "correct horse battery staple";

/// What the secrets of webhooks are encrypted with.
pub const WEBHOOK_KEY: &str = "dGhlIGtleSBvZiBhbGwgdGhlIHRlc3RzLCAzMiBieXQ=";

/// A running API with one tenant, `acme`, that has an admin, an editor and a viewer.
pub struct TestApp {
    pub app: App,
    pub base: String,
    pub tenant: Tenant,
    pub database: TestDatabase,
    environment: Vec<(String, String)>,
    pub keys: Arc<Keys>,
    storage: PathBuf,
    stop: CancellationToken,
    anonymous: Client,
}

impl TestApp {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With settings, as environment variables.
    pub async fn start_with(settings: &[(&str, &str)]) -> Self {
        Self::start_on(TestDatabase::migrated().await, settings).await
    }

    /// The same with this database.
    pub async fn start_on(database: TestDatabase, settings: &[(&str, &str)]) -> Self {
        let name = uuid::Uuid::now_v7().simple().to_string();
        let storage = std::env::temp_dir().join(format!("mdl-test-{name}"));
        let mut environment: Vec<(String, String)> = vec![
            ("DATABASE_URL".to_owned(), database.url("mdl_app")),
            ("DATABASE_OWNER_URL".to_owned(), database.url("mdl_owner")),
            (
                "REDIS_URL".to_owned(),
                variable("MDL_TEST_REDIS_URL").expect("MDL_TEST_REDIS_URL: run the tests with ops/dev test"),
            ),
            ("MDL_REDIS_PREFIX".to_owned(), format!("test-{name}")),
            ("MDL_STORAGE_URL".to_owned(), format!("file://{}", storage.display())),
            ("MDL_WEB_DIR".to_owned(), crate::root().join("web/dist").display().to_string()),
            ("DATABASE_POOL_SIZE".to_owned(), "6".to_owned()),
            ("MDL_DEFAULT_TENANT".to_owned(), "acme".to_owned()),
            ("MDL_WEBHOOK_KEYS".to_owned(), WEBHOOK_KEY.to_owned()),
            // The receivers of tests are here.
            ("MDL_WEBHOOK_ALLOW".to_owned(), "127.0.0.0/8".to_owned()),
        ];
        for (name, value) in settings {
            environment.retain(|(known, _)| known != name);
            environment.push(((*name).to_owned(), (*value).to_owned()));
        }
        let config = config(&environment);
        let app = App::new(config).expect("an app");
        let keys = Arc::new(Keys::load(&app.config.auth).expect("signing keys"));
        let stop = CancellationToken::new();
        let base = serve(&app, 0, &keys, &stop).await;
        let tenant = tenants::create(&app, "acme", "Acme").await.expect("a tenant");
        add_users(&app, &tenant).await;
        let anonymous = Client::anonymous(&base);
        Self { app, base, tenant, database, environment, keys, storage, stop, anonymous }
    }

    /// Starts another API on the same servers, with these settings changed, and gives its app and its address. A client of
    /// the first is one of this, too, at this address.
    pub async fn another_api(&self, settings: &[(&str, &str)]) -> (App, String) {
        self.another_api_at(0, settings).await
    }

    /// The same on this port.
    pub async fn another_api_at(&self, port: u16, settings: &[(&str, &str)]) -> (App, String) {
        let app = self.app_with(settings);
        let base = serve(&app, port, &self.keys, &self.stop).await;
        (app, base)
    }

    fn app_with(&self, settings: &[(&str, &str)]) -> App {
        let mut environment = self.environment.clone();
        for (name, value) in settings {
            environment.retain(|(known, _)| known != name);
            environment.push(((*name).to_owned(), (*value).to_owned()));
        }
        App::new(config(&environment)).expect("an app")
    }

    /// The command line's actor in the first tenant: may everything.
    pub fn system(&self) -> Actor {
        Actor::system(self.tenant.id)
    }

    pub fn anonymous(&self) -> &Client {
        &self.anonymous
    }

    /// A signed-in client of the first tenant.
    pub async fn client(&self, role: Role) -> Client {
        self.client_of("acme", role).await
    }

    pub async fn client_of(&self, tenant: &str, role: Role) -> Client {
        self.anonymous.sign_in(tenant, &email(role), PASSWORD).await
    }

    /// A second tenant with the same users.
    pub async fn other_tenant(&self) -> Tenant {
        let tenant = tenants::create(&self.app, "globex", "Globex").await.expect("a second tenant");
        add_users(&self.app, &tenant).await;
        tenant
    }

    /// Another instance of the API beside this one, with these settings: a client of it without a credential. Access tokens
    /// of either are good for both.
    pub async fn instance(&self, settings: &[(&str, &str)]) -> Client {
        Client::anonymous(&self.another_api(settings).await.1)
    }

    /// Runs a worker in this process until the test ends.
    pub fn start_worker(&self) {
        self.start_worker_of(self.app.clone());
    }

    /// The same with these settings changed.
    pub fn start_worker_with(&self, settings: &[(&str, &str)]) {
        self.start_worker_of(self.app_with(settings));
    }

    /// The same with another app of these servers.
    pub fn start_worker_of(&self, app: App) {
        self.run_worker(app, mdl_worker::jobs::registry());
    }

    /// The same that does these kinds of jobs, and no others.
    pub fn start_worker_doing(&self, registry: Registry) {
        self.run_worker(self.app.clone(), registry);
    }

    fn run_worker(&self, app: App, registry: Registry) {
        let stop = mdl_worker::Stop { gently: self.stop.clone(), now: self.stop.clone() };
        tokio::spawn(async move { mdl_worker::run(app, registry, stop).await.expect("the worker runs") });
    }

    /// The settings of this app, for a program.
    pub fn environment(&self) -> Vec<(String, String)> {
        self.environment.clone()
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        self.stop.cancel();
        if self.storage.exists()
            && let Err(error) = std::fs::remove_dir_all(&self.storage)
        {
            eprintln!("{}: {error}", self.storage.display());
        }
    }
}

/// Serves until the test ends, and gives the address. Port 0 is any.
async fn serve(app: &App, port: u16, keys: &Arc<Keys>, stop: &CancellationToken) -> String {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("its address"));
    let router = mdl_api::http::router(app.clone(), keys.clone()).into_make_service_with_connect_info::<SocketAddr>();
    let stopped = stop.clone().cancelled_owned();
    tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(stopped).await.expect("the API serves") });
    base
}

/// The address of the user with this role.
pub fn email(role: Role) -> String {
    format!("{}@example.com", role.as_str())
}

async fn add_users(app: &App, tenant: &Tenant) {
    for role in Role::ALL {
        let new =
            NewUser { email: email(*role), name: format!("The {}", role.as_str()), password: PASSWORD.to_owned(), role: *role };
        users::create(app, &Actor::system(tenant.id), new).await.expect("a user");
    }
}

/// The settings a program with this environment would have.
fn config(environment: &[(String, String)]) -> Config {
    let flags = environment.iter().map(|(name, value)| {
        let flag = name.strip_prefix("MDL_").unwrap_or(name).to_lowercase().replace('_', "-");
        format!("--{flag}={value}")
    });
    Config::from_arguments(std::iter::once("test".to_owned()).chain(flags)).expect("settings")
}
