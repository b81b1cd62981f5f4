// The page is whole without this. This keeps it up to date: one stream of server-sent events says which
// pieces changed, and they are merged into the page so that focus, scroll, selection and input stay.
"use strict";

const quiet = 16_000; // three beats of the server, and some: longer silence is a connection that is lost
const hiddenFor = 30_000; // a page that nobody sees gives its connection back after this
const mostLines = 2000; // of output that are kept

const trusted = window.trustedTypes?.createPolicy("pieces", { createHTML: (html) => html }) ?? { createHTML: (html) => html };
const $ = (id) => document.getElementById(id);
const clock = { ahead: 0 }; // how far the node's clock is before this one
const link = { source: null, heard: 0, since: null, wait: 0, timer: 0 };

// ---- The connection.

function connect() {
	clearTimeout(link.timer);
	link.source?.close();
	const has = [...document.querySelectorAll("[data-piece]")].map((p) => p.dataset.piece + ":" + p.dataset.hash).join(",");
	const source = new EventSource("/live?" + new URLSearchParams({ view: location.pathname + location.search, has }));
	link.source = source;
	link.heard = Date.now();
	const on = (kind, tell) =>
		source.addEventListener(kind, (event) => {
			if (source !== link.source) return;
			link.heard = Date.now();
			tell(JSON.parse(event.data));
		});
	on("hello", hello);
	on("beat", ({ now }) => setClock(now));
	on("swap", swap);
	on("log-begin", beginLog);
	on("log", addLines);
	// A browser would ask again by itself, but for what the page showed when it asked first.
	source.onerror = () => source === link.source && lose();
}

function hello({ build, now }) {
	if (build !== document.body.dataset.build) return location.reload(); // the node has another version
	setClock(now);
	link.since = null;
	link.wait = 0;
	$("lost").textContent = "";
	$("pulse").hidden = false;
	$("pulse").removeAttribute("data-lost");
	$("pulse").firstElementChild.textContent = "live";
}

function lose() {
	link.source?.close();
	link.since ??= new Date();
	const at = link.since.toLocaleTimeString([], { hourCycle: "h23" });
	const words = `Not connected since ${at}; trying again. What is shown may be old.`;
	if ($("lost").textContent !== words) $("lost").textContent = words;
	$("pulse").hidden = false;
	$("pulse").setAttribute("data-lost", "");
	$("pulse").firstElementChild.textContent = "not connected";
	link.wait = Math.min(2000, link.wait * 2 || 250);
	clearTimeout(link.timer);
	link.timer = setTimeout(connect, link.wait * (0.75 + Math.random() / 2));
}

function setClock(now) {
	clock.ahead = Date.parse(now) - Date.now();
}

// ---- Pieces.

function swap(pieces) {
	for (const { name, html, hash } of pieces) {
		const at = document.querySelector(`[data-piece="${name}"]`);
		if (!at) continue;
		const made = document.createElement("template");
		made.innerHTML = trusted.createHTML(html);
		merge(at, made.content);
		at.dataset.hash = hash;
	}
	$("main").removeAttribute("aria-busy");
	for (const chart of document.querySelectorAll(".chart[data-place]")) readChart(chart, Number(chart.dataset.place));
	count();
	speak();
}

const keyOf = (node) => (node.nodeType === 1 ? node.dataset.key || node.id : "");

// merge makes the children of one node those of another, and keeps each that is there already.
function merge(into, from) {
	const keyed = new Map();
	for (const child of into.children) {
		const key = keyOf(child);
		if (key) keyed.set(key, child);
	}
	let at = into.firstChild;
	for (const want of [...from.childNodes]) {
		const key = keyOf(want);
		let have = key ? keyed.get(key) : at;
		if (!key) while (have && (keyOf(have) || have.nodeName !== want.nodeName)) have = have.nextSibling;
		if (!have || have.nodeName !== want.nodeName) {
			into.insertBefore(want, at);
			continue;
		}
		if (have === at) at = at.nextSibling;
		else if (into.moveBefore) into.moveBefore(have, at); // keeps its focus
		else into.insertBefore(have, at);
		keyed.delete(key);
		same(have, want);
	}
	while (at) {
		const next = at.nextSibling;
		at.remove();
		at = next;
	}
}

function same(have, want) {
	if (have.nodeType !== 1) {
		if (have.nodeValue !== want.nodeValue) have.nodeValue = want.nodeValue;
		return;
	}
	const state = have.dataset?.state;
	for (const { name } of [...have.attributes]) {
		if (!want.hasAttribute(name) && name !== "open" && name !== "tabindex" && name !== "data-place") have.removeAttribute(name);
	}
	for (const { name, value } of want.attributes) {
		if (have.getAttribute(name) !== value) have.setAttribute(name, value);
	}
	if (state && state !== want.dataset.state && have.classList.contains("state")) have.classList.add("fresh");
	merge(have, want);
}

// ---- What counts on by itself: how long ago things were.

function count() {
	const now = Date.now() + clock.ahead;
	for (const at of document.querySelectorAll("[data-ago]")) {
		const s = Math.max(0, Math.floor((now - Date.parse(at.dateTime)) / 1000));
		const words = s < 60 ? s + "s" : s < 3600 ? Math.floor(s / 60) + "m" : s < 86400 ? Math.floor(s / 3600) + "h" : Math.floor(s / 86400) + "d";
		if (at.textContent !== words) at.textContent = words;
	}
}

// speak tells who can't see the page when the headline is another one: that, and nothing else.
function speak() {
	const words = document.querySelector("[data-spoken]")?.textContent ?? "";
	if (speak.last !== undefined && speak.last !== words) $("spoken").textContent = words;
	speak.last = words;
}

// ---- Filters, sorting and pages, without a new page.

function go(url, replace) {
	history[replace ? "replaceState" : "pushState"](null, "", url);
	$("main").setAttribute("aria-busy", "true");
	connect();
}

function find(form, replace) {
	const values = new URLSearchParams(location.search);
	values.delete("page");
	for (const field of form.elements) {
		if (!field.name || field.type === "hidden") continue;
		if (field.value) values.set(field.name, field.value);
		else values.delete(field.name);
	}
	const query = values.toString();
	const url = location.pathname + (query ? "?" + query : "");
	if (url !== location.pathname + location.search) go(url, replace);
}

function fillForm() {
	const values = new URLSearchParams(location.search);
	for (const field of document.querySelector("[data-find]")?.elements ?? []) {
		if (field.name && field.type !== "hidden") field.value = values.get(field.name) ?? "";
	}
}

// ---- Output of an instance. Guests write it, so it is only ever text.

const log = { node: "", generation: 0, seq: 0, remark: "" };

function beginLog({ node, generation }) {
	if (log.node && (log.node !== node || log.generation !== generation)) {
		addLine({ seq: 0, stream: "wasmatrix", text: `from here on it is the output on ${node}, generation ${generation}` });
		log.seq = 0;
	}
	log.node = node;
	log.generation = generation;
}

function addLines(lines) {
	const list = $("log");
	const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 24;
	for (const line of lines) {
		if (line.seq ? line.seq <= log.seq : line.text === log.remark) continue; // known since before a break
		if (line.seq) log.seq = line.seq;
		else log.remark = line.text;
		addLine(line);
	}
	while (list.childElementCount > mostLines) list.firstElementChild.remove();
	if (atEnd) list.scrollTop = list.scrollHeight;
	$("newest").hidden = atEnd;
}

function addLine({ seq, time, stream, text }) {
	const part = (name, words, look) => {
		const made = document.createElement(name);
		made.textContent = words;
		if (look) made.className = look;
		return made;
	};
	const line = document.createElement("li");
	line.dataset.seq = seq;
	line.dataset.stream = stream;
	line.append(part("time", time ? time.slice(11, 23).padEnd(12, "0").replace("Z", "0") : ""), " ", part("span", stream, "unseen"), " ", part("bdi", text));
	$("log").append(line);
}

// ---- Charts: a line that is read out where one points, or with the arrow keys.

function readChart(chart, place) {
	const { from, step, unit, series } = JSON.parse(chart.dataset.points);
	const n = series[0].values.length;
	const i = Math.max(0, Math.min(n - 1, place));
	chart.dataset.place = i;
	const line = chart.querySelector(".cursor");
	const x = n > 1 ? (300 * i) / (n - 1) : 0;
	for (const end of ["x1", "x2"]) line.setAttribute(end, x);
	line.removeAttribute("hidden");
	const at = new Date(Date.parse(from) + i * step * 1000).toLocaleTimeString([], { hourCycle: "h23" });
	const said = series.map(({ name, values }) => (values[i] === null ? "" : `${name} ${values[i]}${unit}`)).filter(Boolean);
	chart.querySelector(".read").textContent = `${at}: ${said.join(", ") || "not known"}`;
}

function leaveChart(chart) {
	delete chart.dataset.place;
	chart.querySelector(".cursor").setAttribute("hidden", "");
	chart.querySelector(".read").textContent = chart.dataset.now;
}

document.addEventListener("pointermove", (event) => {
	const svg = event.target.closest?.(".chart svg");
	if (!svg) return;
	const box = svg.getBoundingClientRect();
	const chart = svg.closest(".chart");
	const n = JSON.parse(chart.dataset.points).series[0].values.length;
	readChart(chart, Math.round(((event.clientX - box.left) / box.width) * (n - 1)));
});
for (const left of ["pointerout", "focusout"]) {
	document.addEventListener(left, (event) => {
		const chart = event.target.closest?.(".chart");
		if (chart && !chart.contains(event.relatedTarget) && chart.dataset.place) leaveChart(chart);
	});
}

// ---- Begin.

document.addEventListener("click", (event) => {
	const a = event.target.closest?.("a[data-live]");
	if (!a || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
	event.preventDefault();
	go(a.href, false);
});
document.addEventListener("submit", (event) => {
	if (!event.target.matches("[data-find]")) return;
	event.preventDefault();
	find(event.target, false);
});
let typing = 0;
document.addEventListener("input", (event) => {
	const form = event.target.closest?.("[data-find]");
	if (!form) return;
	clearTimeout(typing);
	typing = setTimeout(() => find(form, true), 150);
});
document.addEventListener("keydown", (event) => {
	if (event.key === "/" && !event.ctrlKey && !event.metaKey && !/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
		const field = $("q");
		if (!field) return;
		event.preventDefault();
		field.select();
	}
	const chart = event.target.closest?.(".chart");
	const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
	if (chart && by) {
		event.preventDefault();
		const last = JSON.parse(chart.dataset.points).series[0].values.length - 1;
		readChart(chart, Number(chart.dataset.place ?? last + 1) + by);
		$("spoken").textContent = chart.querySelector(".read").textContent;
	}
});
addEventListener("popstate", () => (fillForm(), connect()));
addEventListener("pageshow", (event) => event.persisted && connect());
addEventListener("pagehide", () => link.source?.close());
addEventListener("online", connect);
let hiding = 0;
document.addEventListener("visibilitychange", () => {
	clearTimeout(hiding);
	if (!document.hidden && link.source?.readyState !== EventSource.OPEN) connect();
	// A browser opens six connections to a node, and a page that nobody sees needs none.
	if (document.hidden) hiding = setTimeout(() => (clearTimeout(link.timer), link.source?.close()), hiddenFor);
});
setInterval(() => {
	count();
	if (!document.hidden && link.source?.readyState === EventSource.OPEN && Date.now() - link.heard > quiet) lose();
}, 1000);

document.documentElement.classList.add("scripted");
setClock(document.body.dataset.now);
count();
speak();
if ($("log")) {
	for (const line of $("log").children) log.seq = Math.max(log.seq, Number(line.dataset.seq));
	log.remark = $("log").querySelector('[data-seq="0"]:last-child bdi')?.textContent ?? "";
	$("log").scrollTop = $("log").scrollHeight;
	$("newest").addEventListener("click", () => (($("log").scrollTop = $("log").scrollHeight), ($("newest").hidden = true)));
	$("log").addEventListener("scroll", () => {
		if ($("log").scrollHeight - $("log").scrollTop - $("log").clientHeight < 24) $("newest").hidden = true;
	});
}
connect();
