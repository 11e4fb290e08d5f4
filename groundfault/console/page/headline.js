export function show(view) {}
export function lost(why) {}
