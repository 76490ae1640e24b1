// What a model writes, as elements: the little Markdown that models use. Text only ever becomes text nodes, so that
// nothing a model writes is taken for HTML.
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const INLINE = /(`[^`\n]+`|\*\*[^*\n]+\*\*|\*[^*\s][^*\n]*\*)/;

function inline(text) {
  return text.split(INLINE).filter(Boolean).map((part) => {
    if (part.length > 2 && part.startsWith("`") && part.endsWith("`")) return element("code", {}, part.slice(1, -1));
    if (part.length > 4 && part.startsWith("**") && part.endsWith("**")) return element("strong", {}, part.slice(2, -2));
    if (part.length > 2 && part.startsWith("*") && part.endsWith("*")) return element("em", {}, part.slice(1, -1));
    return part;
  });
}

function codeBlock(lines) {
  const text = lines.join("\n");
  const copy = element("button", {type: "button"}, "Copy");
  copy.addEventListener("click", () => navigator.clipboard?.writeText(text));
  return element("pre", {}, element("code", {}, text), copy);
}

// A block of lines that belong together.
function block(lines) {
  const heading = /^(#{1,4})\s+(.*)$/.exec(lines[0]);
  if (heading && lines.length === 1) return element("p", {}, element("strong", {}, ...inline(heading[2])));
  const items = lines.map((line) => /^\s*(?:[-*]|(\d+)[.)])\s+(.*)$/.exec(line));
  if (items.every(Boolean)) {
    const list = element(items[0][1] ? "ol" : "ul", {}, ...items.map((item) => element("li", {}, ...inline(item[2]))));
    if (items[0][1]) list.start = Number(items[0][1]);
    return list;
  }
  const paragraph = element("p");
  lines.forEach((line, i) => paragraph.append(...(i ? [element("br")] : []), ...inline(line)));
  return paragraph;
}

export function markdown(text) {
  const blocks = [];
  let lines = [], code = null;
  const end = () => {
    if (lines.length) blocks.push(block(lines));
    lines = [];
  };
  for (const line of text.split("\n")) {
    if (line.trimStart().startsWith("```")) {
      if (code) blocks.push(codeBlock(code));
      else end();
      code = code ? null : [];
    } else if (code) {
      code.push(line);
    } else if (line.trim() === "") {
      end();
    } else {
      lines.push(line);
    }
  }
  if (code) blocks.push(codeBlock(code));
  end();
  return blocks;
}
