//! `fleetcheck edit`: a definition in the person's editor, and back to the hub only where nobody else has changed it
//! meanwhile. What was written is never lost: where it cannot be applied, its file stays.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use active_monitor_core::definition::FleetHealthCheck;

use crate::args::EditArgs;
use crate::client::{Client, Tagged};
use crate::documents;
use crate::output;
use crate::{Error, Exit, Streams, World};

/// Why nothing was edited.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EditError {
    #[error("the definition {name} is Git's: change {origin} in the repository")]
    Git { name: String, origin: String },
    #[error("the definition {name} is a resource's: change {place} in the hub's own cluster")]
    Resource { name: String, place: String },
    #[error("cannot write {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("cannot run the editor {editor:?}; $VISUAL or $EDITOR says which")]
    NoEditor { editor: String, source: io::Error },
    #[error("the editor {editor:?} failed; nothing was changed")]
    Editor { editor: String },
    #[error("the file must have one definition, {name}; nothing was sent")]
    Other { name: String },
}

pub(super) async fn run(
    hub: &Client,
    EditArgs { name }: EditArgs,
    world: &World,
    streams: &mut Streams<'_>,
) -> Result<Exit, Error> {
    let Tagged { tag, value: view } = hub.definition_to_edit(&name).await?;
    if let Some(origin) = &view.git {
        return Err(EditError::Git { name, origin: origin.in_words() }.into());
    }
    if let Some(place) = view.resource {
        return Err(EditError::Resource { name, place }.into());
    }
    let text = output::yaml(&view.definition)?;
    let path = std::env::temp_dir().join(format!("fleetcheck-{name}-{}.yaml", std::process::id()));
    let failed = |source| EditError::File { path: path.clone(), source };
    write(&path, &text).map_err(failed)?;
    let edited = edit(&path, world).and_then(|()| Ok(std::fs::read_to_string(&path).map_err(failed)?));
    if edited.as_ref().is_ok_and(|edited| *edited != text) {
        if let Err(error) = put(hub, &name, &path, tag.as_deref(), streams).await {
            writeln!(streams.err, "what you wrote is in {}; `fleetcheck diff -f` compares it", path.display())?;
            return Err(error);
        }
        writeln!(streams.out, "definition {name} configured")?;
    }
    if edited.is_err() && std::fs::read(&path).is_ok_and(|written| written != text.as_bytes()) {
        writeln!(streams.err, "what you wrote is in {}", path.display())?;
        return edited.map(|_| Exit::Fine);
    }
    std::fs::remove_file(&path).map_err(failed)?;
    if edited? == text {
        writeln!(streams.out, "definition {name} unchanged")?;
    }
    Ok(Exit::Fine)
}

/// For this person alone, and no file that is there.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(text.as_bytes())
}

/// `$EDITOR` may have arguments of its own, so a shell runs it.
fn edit(path: &Path, world: &World) -> Result<(), Error> {
    let said = ["VISUAL", "EDITOR"].into_iter().filter_map(|name| (world.env)(name)).find(|text| !text.is_empty());
    let editor = said.unwrap_or_else(|| "vi".to_owned());
    let status = Command::new("sh").arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(path).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(EditError::Editor { editor }.into()),
        Err(source) => Err(EditError::NoEditor { editor, source }.into()),
    }
}

async fn put(hub: &Client, name: &str, path: &Path, tag: Option<&str>, streams: &mut Streams<'_>) -> Result<(), Error> {
    let definitions: Vec<FleetHealthCheck> = documents::definitions(&[path.to_owned()], streams)?;
    let [definition] = definitions.as_slice() else { return Err(EditError::Other { name: name.to_owned() }.into()) };
    if definition.metadata.name != name {
        return Err(EditError::Other { name: name.to_owned() }.into());
    }
    Ok(hub.put_definition_over(definition, tag).await?)
}
