//! The first people of a tenant. Passwords come by standard input: arguments can be read by everybody on the machine.

use std::io::Read;

use anyhow::Context;
use clap::{Args, Subcommand};
use mdl::actor::Role;
use mdl::error::{Code, Error};
use mdl::ids::TenantId;
use mdl::users::NewUser;
use mdl::{Actor, App, output, tenants, users};

use super::explain;

#[derive(Debug, Subcommand)]
pub enum TenantCommand {
    /// Make a tenant and its first admin
    Create(CreateTenant),
}

#[derive(Debug, Args)]
pub struct CreateTenant {
    /// Its name at sign-in: lower-case letters, digits and hyphens
    #[arg(long)]
    slug: String,
    /// Its name for people
    #[arg(long)]
    name: String,
    /// E-mail address of its first admin
    #[arg(long)]
    admin_email: String,
    /// Name of its first admin
    #[arg(long, default_value = "Admin")]
    admin_name: String,
    /// Read the admin's password from standard input
    #[arg(long, required = true)]
    admin_password_stdin: bool,
    /// What is there already stays as it is, and is no error
    #[arg(long)]
    if_missing: bool,
}

#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Add a user to a tenant
    Create(CreateUser),
}

#[derive(Debug, Args)]
pub struct CreateUser {
    /// Slug of the tenant
    #[arg(long)]
    tenant: String,
    /// E-mail address, which they sign in with
    #[arg(long)]
    email: String,
    /// Their name for people
    #[arg(long)]
    name: String,
    /// What they may do
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(["viewer", "editor", "admin"]))]
    role: String,
    /// Read the password from standard input
    #[arg(long, required = true)]
    password_stdin: bool,
    /// A user who is there already stays as they are, and is no error
    #[arg(long)]
    if_missing: bool,
}

impl TenantCommand {
    pub async fn run(self, app: &App) -> anyhow::Result<()> {
        let TenantCommand::Create(args) = self;
        let password = read_password()?;
        let tenant = match tenants::create(app, &args.slug, &args.name).await {
            Ok(tenant) => {
                output::line(format_args!("Made the tenant {}", tenant.slug));
                tenant
            }
            Err(error) if args.if_missing && is_taken(&error) => {
                output::line(format_args!("The tenant {} is there already", args.slug));
                tenant(app, &args.slug).await?
            }
            Err(error) => return Err(explain(error)),
        };
        let admin = NewUser { email: args.admin_email, name: args.admin_name, password, role: Role::Admin };
        add(app, tenant.id, admin, args.if_missing).await.with_context(|| {
            format!("The tenant {} has no admin yet: mend this and run the command again with --if-missing", tenant.slug)
        })
    }
}

impl UserCommand {
    pub async fn run(self, app: &App) -> anyhow::Result<()> {
        let UserCommand::Create(args) = self;
        let password = read_password()?;
        let role = Role::parse(&args.role).context("The role is viewer, editor or admin")?;
        let tenant = tenant(app, &args.tenant).await?;
        add(app, tenant.id, NewUser { email: args.email, name: args.name, password, role }, args.if_missing).await
    }
}

/// The tenant with this slug.
pub async fn tenant(app: &App, slug: &str) -> anyhow::Result<tenants::Tenant> {
    tenants::by_slug(app, slug).await.map_err(explain)?.with_context(|| format!("There is no tenant {slug:?}"))
}

async fn add(app: &App, tenant: TenantId, user: NewUser, if_missing: bool) -> anyhow::Result<()> {
    let email = user.email.clone();
    match users::create(app, &Actor::system(tenant), user).await {
        Ok(member) => output::line(format_args!("Added {} as {}", member.user.email, member.role.as_str())),
        Err(error) if if_missing && is_taken(&error) => output::line(format_args!("{email} is there already")),
        Err(error) => return Err(explain(error)),
    }
    Ok(())
}

fn is_taken(error: &Error) -> bool {
    matches!(error, Error::Invalid(problems) if problems.iter().all(|problem| problem.code == Code::Taken))
}

/// All of standard input, without the line's end that echo adds.
fn read_password() -> anyhow::Result<String> {
    let mut password = String::new();
    std::io::stdin().read_to_string(&mut password).context("Could not read the password from standard input")?;
    let end = password.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).map_or(password.len(), str::len);
    password.truncate(end);
    Ok(password)
}
