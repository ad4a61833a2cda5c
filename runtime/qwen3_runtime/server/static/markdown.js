// A small part of Markdown as DOM nodes. Text only ever becomes text nodes, never markup.

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`\s]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const QUOTE = /^ {0,3}> ?/;
const RULE = /^ {0,3}([-*_])\s*(?:\1\s*){2,}$/;
const TABLE_RULE = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;
const INLINE = new RegExp(
  [
    "(?<tick>`+)(?<code>[^`]|[^`][^]*?[^`])\\k<tick>(?!`)",
    "\\*\\*(?=\\S)(?<bold>[^]*?\\S)\\*\\*",
    "\\*(?=[^\\s*])(?<italic>[^*]*?[^\\s*])\\*",
    "\\[(?<label>[^\\[\\]]+)\\]\\((?<target>https?://[^\\s()<>]+(?:\\([^\\s()<>]*\\)[^\\s()<>]*)*)\\)",
    "(?<bare>https?://[^\\s<>\"'`*()（）]+[^\\s<>\"'`*().,;:!?（），。；：！？])",
    "\\\\(?<escaped>[\\\\`*_\\[\\]#>~|-])",
  ].join("|"),
  "g",
);

/** Makes an element with children; strings become text nodes. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Shows text in an element; blocks that did not change keep their nodes. */
export function showMarkdown(element, text, codeHead) {
  const blocks = splitBlocks(text);
  blocks.forEach((block, index) => {
    const source = JSON.stringify(block);
    const old = element.children[index];
    if (old?.source === source) return;
    const fresh = blockNode(block, codeHead);
    fresh.source = source;
    if (old) old.replaceWith(fresh);
    else element.append(fresh);
  });
  while (element.children.length > blocks.length) element.lastChild.remove();
}

function splitBlocks(text) {
  const lines = text.replaceAll("\r\n", "\n").split("\n");
  const blocks = [];
  let next = 0;
  const takeWhile = (isPart) => {
    const start = next;
    next += 1;
    while (next < lines.length && isPart(lines[next])) next += 1;
    return lines.slice(start, next);
  };
  while (next < lines.length) {
    const line = lines[next];
    const fence = FENCE.exec(line);
    const heading = HEADING.exec(line);
    if (!line.trim()) next += 1;
    else if (fence) {
      const body = takeWhile((each) => !closes(each, fence[1]));
      next += 1;
      blocks.push({ kind: "code", language: fence[2], text: body.slice(1).join("\n") });
    } else if (heading) {
      blocks.push({ kind: "heading", level: heading[1].length, text: heading[2] });
      next += 1;
    } else if (RULE.test(line)) {
      blocks.push({ kind: "rule" });
      next += 1;
    } else if (QUOTE.test(line)) {
      const quoted = takeWhile((each) => QUOTE.test(each));
      blocks.push({ kind: "quote", text: quoted.map((each) => each.replace(QUOTE, "")).join("\n") });
    } else if (ITEM.test(line)) {
      blocks.push({ kind: "list", lines: takeWhile(partOfList(lines, () => next)) });
    } else if (line.includes("|") && TABLE_RULE.test(lines[next + 1] ?? "x")) {
      blocks.push({ kind: "table", lines: takeWhile((each) => each.includes("|")) });
    } else {
      blocks.push({ kind: "paragraph", text: takeWhile((each) => !beginsBlock(each)).join("\n") });
    }
  }
  return blocks;
}

function closes(line, fence) {
  const ticks = line.trim();
  return ticks.length >= fence.length && ticks === fence[0].repeat(ticks.length);
}

function beginsBlock(line) {
  return !line.trim() || [FENCE, HEADING, QUOTE, ITEM, RULE].some((start) => start.test(line));
}

// A blank line belongs to a list when the list goes on after it.
function partOfList(lines, at) {
  return (line) => {
    const following = line.trim() ? line : (lines[at() + 1] ?? "");
    return ITEM.test(following) || /^\s+\S/.test(following) || (line.trim() && !beginsBlock(line));
  };
}

function blockNode(block, codeHead) {
  switch (block.kind) {
    case "code": {
      const code = make("code", {}, block.text);
      return make("div", { class: "code" }, codeHead(block.language, block.text), make("pre", { tabindex: "0" }, code));
    }
    case "heading":
      return make(`h${Math.min(block.level + 2, 6)}`, {}, ...inline(block.text));
    case "rule":
      return make("hr");
    case "quote": {
      const quote = make("blockquote");
      showMarkdown(quote, block.text, codeHead);
      return quote;
    }
    case "list":
      return listNode(block.lines, codeHead);
    case "table":
      return tableNode(block.lines);
    default:
      return make("p", {}, ...inline(block.text));
  }
}

function listNode(lines, codeHead) {
  const [, indent, mark] = ITEM.exec(lines[0]);
  const isOrdered = /\d/.test(mark);
  const list = make(isOrdered ? "ol" : "ul", isOrdered ? { start: parseInt(mark, 10) } : {});
  let own = [];
  const finish = () => {
    if (!own.length) return;
    const item = make("li");
    showMarkdown(item, own.join("\n"), codeHead);
    list.append(item);
  };
  for (const line of lines) {
    const item = ITEM.exec(line);
    if (item && item[1].length <= indent.length) {
      finish();
      own = [item[3]];
    } else {
      const strip = Math.min(indent.length + mark.length + 1, line.length - line.trimStart().length);
      own.push(line.slice(strip));
    }
  }
  finish();
  return list;
}

function tableNode(lines) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
  const row = (line, tag) => make("tr", {}, ...cells(line).map((cell) => make(tag, {}, ...inline(cell))));
  const head = make("thead", {}, row(lines[0], "th"));
  const body = make("tbody", {}, ...lines.slice(2).map((line) => row(line, "td")));
  return make("div", { class: "table" }, make("table", {}, head, body));
}

function inline(text) {
  const nodes = [];
  let end = 0;
  for (const match of text.matchAll(INLINE)) {
    nodes.push(text.slice(end, match.index), inlineNode(match));
    end = match.index + match[0].length;
  }
  nodes.push(text.slice(end));
  return nodes.filter((node) => node !== "");
}

function inlineNode({ groups }) {
  if (groups.code !== undefined) return make("code", {}, groups.code);
  if (groups.bold !== undefined) return make("strong", {}, ...inline(groups.bold));
  if (groups.italic !== undefined) return make("em", {}, ...inline(groups.italic));
  if (groups.label !== undefined) return link(groups.target, groups.label);
  if (groups.bare !== undefined) return link(groups.bare, groups.bare);
  return groups.escaped;
}

// The patterns let http and https through and nothing else.
function link(target, label) {
  return make("a", { href: target, target: "_blank", rel: "noopener noreferrer nofollow" }, label);
}
