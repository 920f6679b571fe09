// The tabs: one panel is shown, the address names it.

import { byId } from "./dom.js";

export function tabs(list) {
	const all = [...list.querySelectorAll("[role=tab]")];
	const panel = (tab) => byId(tab.getAttribute("aria-controls"));
	const select = (tab) => {
		for (const each of all) {
			each.setAttribute("aria-selected", each === tab);
			each.tabIndex = each === tab ? 0 : -1;
			panel(each).hidden = each !== tab;
		}
	};
	const named = () => all.find((tab) => location.hash === `#${tab.getAttribute("aria-controls")}`);
	for (const tab of all) {
		tab.addEventListener("click", () => {
			select(tab);
			history.replaceState(null, "", `#${tab.getAttribute("aria-controls")}`);
		});
	}
	list.addEventListener("keydown", (event) => {
		const here = all.indexOf(document.activeElement);
		const to = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: all.length - 1 }[event.key];
		const tab = to === undefined ? null : all.at(to % all.length);
		if (!tab) return;
		event.preventDefault();
		tab.click();
		tab.focus();
	});
	addEventListener("hashchange", () => select(named() ?? all[0]));
	select(named() ?? all[0]);
}
