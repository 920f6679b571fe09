// Light or dark, before the page is first drawn; what was chosen stays with this browser.

(() => {
	const NEXT = { auto: "light", light: "dark", dark: "auto" };
	let theme = "auto";
	try {
		theme = NEXT[localStorage.getItem("theme")] ? localStorage.getItem("theme") : "auto";
	} catch {
		// no storage: the system's theme
	}

	function show() {
		document.documentElement.dataset.theme = theme;
		const button = document.getElementById("theme");
		if (button) button.textContent = `Theme: ${theme}`;
	}

	show();
	document.addEventListener("DOMContentLoaded", () => {
		show();
		document.getElementById("theme").addEventListener("click", () => {
			theme = NEXT[theme];
			try {
				localStorage.setItem("theme", theme);
			} catch {
				// holds until the page is left
			}
			show();
		});
	});
})();
