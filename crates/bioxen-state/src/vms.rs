//! The table of VMs: what is written to it, and how a row is read.

use bioxen_core::VmName;
use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, named_params};
use uuid::Uuid;

use crate::controllers::Controller;
use crate::error::StateError;
use crate::secret::Secret;
use crate::state::{State, Stopped};
use crate::vm::{Address, KnownBy, NewVm, Phase, Source, Vm, to_microsecond};

impl State {
    /// Reserves a name, and remembers a VM as being made (or adopted) from now on.
    pub fn begin(&self, new: NewVm) -> Result<Vm, StateError> {
        let vm = Vm::new(new);
        self.change(|connection| {
            if let Some(there) = find(connection, &vm.name)? {
                let Vm { name, pool, phase, .. } = there;
                return Err(StateError::Duplicate { name, pool, phase }.into());
            }
            refuse_known(connection, &vm)?;
            insert(connection, &vm)?;
            Ok(vm)
        })
    }

    /// Changes what is known of a VM, and returns it as it is then. The closure sees the newest there
    /// is: two processes that change one VM take turns. Other VMs cannot be changed meanwhile, so it
    /// is to be quick.
    pub fn update(&self, name: &VmName, change: impl FnOnce(&mut Vm)) -> Result<Vm, StateError> {
        self.modify(name, |vm| {
            change(vm);
            vm.expires = vm.expires.map(to_microsecond);
            Ok(())
        })
    }

    /// Says that a VM was made. Once it is ready, this changes nothing.
    pub fn ready(&self, name: &VmName) -> Result<Vm, StateError> {
        self.modify(name, |vm| match vm.phase {
            Phase::Making | Phase::Ready => {
                vm.phase = Phase::Ready;
                Ok(())
            }
            Phase::Deleting => Err(StateError::Deleting { name: vm.name.clone() }),
        })
    }

    /// Says that a VM is being deleted, in whichever phase it is, and by whom: should that controller
    /// die, the VM is abandoned. One that another living controller sees to is refused, and so is one that
    /// was adopted: it is only forgotten.
    pub fn deleting(&self, name: &VmName, by: &Controller) -> Result<Vm, StateError> {
        self.modify(name, |vm| {
            if vm.adopted() {
                return Err(StateError::Adopted { name: vm.name.clone() });
            }
            self.take(vm, by)?;
            vm.phase = Phase::Deleting;
            Ok(())
        })
    }

    /// Puts a VM into the hands of a controller. One that another living controller sees to is refused:
    /// of several who want an abandoned VM, one gets it.
    pub fn claim(&self, name: &VmName, controller: &Controller) -> Result<Vm, StateError> {
        self.modify(name, |vm| self.take(vm, controller))
    }

    /// Lets a VM outlive its controller.
    pub fn release(&self, name: &VmName) -> Result<Vm, StateError> {
        self.modify(name, |vm| {
            vm.controller = None;
            Ok(())
        })
    }

    /// The VM of that name.
    pub fn vm(&self, name: &VmName) -> Result<Vm, StateError> {
        self.read(|connection| expect(connection, name))
    }

    /// The VM of that name, if there is one.
    pub fn find_vm(&self, name: &VmName) -> Result<Option<Vm>, StateError> {
        self.read(|connection| Ok(find(connection, name)?))
    }

    /// All VMs, by name.
    pub fn vms(&self) -> Result<Vec<Vm>, StateError> {
        self.read(|connection| Ok(all(connection)?))
    }

    /// VMs that nobody sees to any more: their controller is dead and had not released them.
    pub fn abandoned(&self) -> Result<Vec<Vm>, StateError> {
        let mut vms = self.vms()?;
        let mut dead = Vec::with_capacity(vms.len());
        for vm in &vms {
            dead.push(match vm.controller {
                Some(controller) => !self.is_alive(controller)?,
                None => false,
            });
        }
        let mut dead = dead.into_iter();
        vms.retain(|_| dead.next().unwrap_or(false));
        Ok(vms)
    }

    /// Forgets a VM and gives its addresses back. The pool is not told.
    pub fn forget(&self, name: &VmName) -> Result<(), StateError> {
        self.change(|connection| {
            match connection.execute("DELETE FROM vms WHERE name = ?1", [name.as_str()])? {
                0 => Err(missing(connection, name)?.into()),
                _ => Ok(()),
            }
        })
    }

    fn modify(
        &self,
        name: &VmName,
        change: impl FnOnce(&mut Vm) -> Result<(), StateError>,
    ) -> Result<Vm, StateError> {
        self.change(|connection| {
            let mut vm = expect(connection, name)?;
            change(&mut vm)?;
            if vm.uuid.is_none() && (vm.phase == Phase::Ready || vm.adopted()) {
                return Err(StateError::NotMade { name: name.clone() }.into());
            }
            refuse_known(connection, &vm)?;
            store(connection, &vm)?;
            Ok(vm)
        })
    }

    fn take(&self, vm: &mut Vm, controller: &Controller) -> Result<(), StateError> {
        match vm.controller {
            Some(other) if other != controller.id() && self.is_alive(other)? => {
                Err(StateError::Held { name: vm.name.clone(), controller: other })
            }
            _ => {
                vm.controller = Some(controller.id());
                Ok(())
            }
        }
    }
}

/// The VM of that name, or the error that lists what is there.
pub(crate) fn expect(connection: &Connection, name: &VmName) -> Result<Vm, Stopped> {
    match find(connection, name)? {
        Some(vm) => Ok(vm),
        None => Err(missing(connection, name)?.into()),
    }
}

fn missing(connection: &Connection, name: &VmName) -> Result<StateError, rusqlite::Error> {
    let mut names = connection.prepare("SELECT '`' || name || '`' FROM vms ORDER BY name")?;
    let names: Vec<String> = names.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Ok(StateError::NoSuchVm { name: name.clone(), there })
}

/// Refuses a VM of the pool that has another name here already.
fn refuse_known(connection: &Connection, vm: &Vm) -> Result<(), Stopped> {
    let Some(uuid) = &vm.uuid else { return Ok(()) };
    let query = "SELECT name FROM vms WHERE pool_uuid = ?1 AND uuid = ?2 AND name != ?3";
    let parameters = [&vm.pool_uuid, uuid, vm.name.as_str()];
    match connection.query_row(query, parameters, |row| name_in(row, "name")).optional()? {
        None => Ok(()),
        Some(name) => Err(StateError::Known { uuid: uuid.clone(), name }.into()),
    }
}

fn find(connection: &Connection, name: &VmName) -> Result<Option<Vm>, rusqlite::Error> {
    let query = "SELECT * FROM vms WHERE name = ?1";
    connection.query_row(query, [name.as_str()], read).optional()
}

fn all(connection: &Connection) -> Result<Vec<Vm>, rusqlite::Error> {
    connection.prepare("SELECT * FROM vms ORDER BY name")?.query_map([], read)?.collect()
}

fn insert(connection: &Connection, vm: &Vm) -> Result<(), rusqlite::Error> {
    let (template_name, template_uuid) = match &vm.source {
        Source::Template { name, uuid, .. } => (Some(name), Some(uuid)),
        Source::Adopted { .. } => (None, None),
    };
    connection.execute(
        "INSERT INTO vms (name, pool, pool_uuid, uuid, making_label, template_name, template_uuid,
                          adopted, phase, controller, created, expires, ssh_port, spec)
         VALUES (:name, :pool, :pool_uuid, :uuid, :making_label, :template_name, :template_uuid,
                 :adopted, :phase, :controller, :created, :expires, :ssh_port, :spec)",
        named_params! {
            ":name": vm.name.as_str(),
            ":pool": vm.pool,
            ":pool_uuid": vm.pool_uuid,
            ":uuid": vm.uuid,
            ":making_label": vm.making_label(),
            ":template_name": template_name,
            ":template_uuid": template_uuid,
            ":adopted": vm.adopted(),
            ":phase": vm.phase.name(),
            ":controller": vm.controller.map(Uuid::into_bytes),
            ":created": vm.created.as_microsecond(),
            ":expires": vm.expires.map(Timestamp::as_microsecond),
            ":ssh_port": vm.ssh_port,
            ":spec": vm.spec,
        },
    )?;
    Ok(())
}

/// Writes what can change.
fn store(connection: &Connection, vm: &Vm) -> Result<(), rusqlite::Error> {
    connection.execute(
        "UPDATE vms SET
            uuid = :uuid, phase = :phase, controller = :controller, expires = :expires,
            address = :address, address_by = :address_by, ssh_user = :ssh_user,
            ssh_port = :ssh_port, host_key = :host_key, client_key = :client_key,
            seed_digest = :seed_digest, memory = :memory, vcpus = :vcpus, disk = :disk,
            spec = :spec, last_verdict = :last_verdict
         WHERE name = :name",
        named_params! {
            ":name": vm.name.as_str(),
            ":uuid": vm.uuid,
            ":phase": vm.phase.name(),
            ":controller": vm.controller.map(Uuid::into_bytes),
            ":expires": vm.expires.map(Timestamp::as_microsecond),
            ":address": vm.address.map(|address| address.ip.to_string()),
            ":address_by": vm.address.map(|address| address.known_by.name()),
            ":ssh_user": vm.ssh_user,
            ":ssh_port": vm.ssh_port,
            ":host_key": vm.host_key,
            ":client_key": vm.client_key.as_ref().map(Secret::expose),
            ":seed_digest": vm.seed_digest,
            ":memory": vm.memory,
            ":vcpus": vm.vcpus,
            ":disk": vm.disk,
            ":spec": vm.spec,
            ":last_verdict": vm.last_verdict,
        },
    )?;
    Ok(())
}

fn read(row: &Row<'_>) -> Result<Vm, rusqlite::Error> {
    let uuid: Option<String> = row.get("uuid")?;
    Ok(Vm {
        name: name_in(row, "name")?,
        pool: row.get("pool")?,
        pool_uuid: row.get("pool_uuid")?,
        source: source_in(row, uuid.as_deref())?,
        phase: one_of(row, "phase", &Phase::ALL, Phase::name)?,
        controller: row.get::<_, Option<[u8; 16]>>("controller")?.map(Uuid::from_bytes),
        created: time(row, "created", row.get("created")?)?,
        uuid,
        expires: row
            .get::<_, Option<i64>>("expires")?
            .map(|expires| time(row, "expires", expires))
            .transpose()?,
        address: address_in(row)?,
        ssh_user: row.get("ssh_user")?,
        ssh_port: row.get("ssh_port")?,
        host_key: row.get("host_key")?,
        client_key: row.get::<_, Option<String>>("client_key")?.map(Secret::from),
        seed_digest: row.get("seed_digest")?,
        memory: row.get("memory")?,
        vcpus: row.get("vcpus")?,
        disk: row.get("disk")?,
        spec: row.get("spec")?,
        last_verdict: row.get("last_verdict")?,
    })
}

fn source_in(row: &Row<'_>, uuid: Option<&str>) -> Result<Source, rusqlite::Error> {
    if row.get("adopted")? {
        let uuid = uuid.ok_or_else(|| strange(row, "uuid", "an adopted vm without a uuid"))?;
        return Ok(Source::Adopted { uuid: uuid.to_owned() });
    }
    Ok(Source::Template {
        name: row.get("template_name")?,
        uuid: row.get("template_uuid")?,
        making_label: row.get("making_label")?,
    })
}

fn address_in(row: &Row<'_>) -> Result<Option<Address>, rusqlite::Error> {
    let Some(ip) = row.get::<_, Option<String>>("address")? else { return Ok(None) };
    let ip = ip.parse().map_err(|error| strange(row, "address", error))?;
    let known_by = one_of(row, "address_by", &KnownBy::ALL, KnownBy::name)?;
    Ok(Some(Address { ip, known_by }))
}

fn name_in(row: &Row<'_>, column: &str) -> Result<VmName, rusqlite::Error> {
    VmName::new(row.get::<_, String>(column)?).map_err(|error| strange(row, column, error))
}

fn time(row: &Row<'_>, column: &str, microseconds: i64) -> Result<Timestamp, rusqlite::Error> {
    Timestamp::from_microsecond(microseconds).map_err(|error| strange(row, column, error))
}

fn one_of<T: Copy>(
    row: &Row<'_>,
    column: &str,
    known: &[T],
    name: fn(T) -> &'static str,
) -> Result<T, rusqlite::Error> {
    let text: String = row.get(column)?;
    let found = known.iter().copied().find(|value| name(*value) == text);
    found.ok_or_else(|| strange(row, column, format!("`{}`", text.escape_debug())))
}

/// A value that only another program can have put there.
fn strange(
    row: &Row<'_>,
    column: &str,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> rusqlite::Error {
    let index = row.as_ref().column_index(column).unwrap_or(0);
    rusqlite::Error::FromSqlConversionFailure(index, Type::Text, error.into())
}
