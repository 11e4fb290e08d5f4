// Listens to a hub: first a whole view, then what has changed of it.

/** Return ``view`` with a change made to it. */
export function applied(view, { commands, ...rest }) {
  const next = { ...view, ...rest };
  if (!commands) return next;
  const rows = new Map((view.commands ?? []).map((row) => [row.id, row]));
  for (const id of commands.gone ?? []) rows.delete(id);
  for (const row of commands.set ?? []) rows.set(row.id, row);
  const order = new Set((commands.order ?? []).filter((id) => rows.has(id)));
  next.commands = [...order, ...[...rows.keys()].filter((id) => !order.has(id))].map((id) => rows.get(id));
  return next;
}

/** Call ``take(view)`` for each new view, ``broken()`` once if the stream ends. Returns what closes it. */
export function listen(take, broken) {
  const source = new EventSource("events");
  let view = null;
  const guarded = (work) => (event) => {
    try {
      work(JSON.parse(event.data));
    } catch {
      stop();
    }
  };
  const stop = () => {
    source.close();
    broken();
  };
  source.addEventListener("view", guarded((whole) => take((view = whole))));
  source.addEventListener("change", guarded((change) => view !== null && take((view = applied(view, change)))));
  source.addEventListener("error", stop);
  return () => source.close();
}
