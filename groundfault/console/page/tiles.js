export function show(view) {}
