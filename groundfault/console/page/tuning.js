export function show(view) {}
/** Open the panel for one command (a CommandRow) or one service (a ServerRow): called by their tiles. */
export function open(row) {}
