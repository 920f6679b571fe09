// How replies are shown: with the drafts tinted, or plain.

import { byId } from "./dom.js";

export const isTinted = () => byId("tinted").checked;

/** `redraw()` is called when it was switched. */
export function onTint(redraw) {
  byId("tinted").addEventListener("change", redraw);
}
