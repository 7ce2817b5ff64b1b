// What the browser does itself: the overlay's opacity, the page's address, and downloads without files on the server.
window.pathmnist = {
  // Values in the order of the names of `defaults`; what is at its default is left out of the address.
  share(values, defaults) {
    const names = Object.keys(defaults);
    document.documentElement.style.setProperty("--map-opacity", values[names.indexOf("opacity")]);
    // Lists become their items with commas.
    pathmnist.setAddress(names.map((name, index) => {
      const text = String(values[index] ?? "");
      return [name, text === String(defaults[name]) ? "" : text];
    }));
    return [];
  },

  shareTab() {
    const selected = document.querySelector('#tabs [role="tab"][aria-selected="true"]');
    const name = selected ? selected.id.replace(/-button$/, "") : "";
    pathmnist.setAddress([["tab", name === "classify" ? "" : name]]);
    return [];
  },

  setAddress(pairs) {
    const address = new URL(window.location);
    for (const [name, value] of pairs) {
      if (value) address.searchParams.set(name, value);
      else address.searchParams.delete(name);
    }
    window.history.replaceState(null, "", address);
  },

  // Gradio gives the examples' buttons a picture and no name.
  nameExamples(names) {
    document.querySelectorAll("#examples .gallery-item").forEach((button, index) => {
      button.setAttribute("aria-label", `Example: ${names[index]}`);
    });
    return [];
  },

  // One row for each method: tile, map, overlay with the opacity that is set.
  savePicture() {
    const cards = [...document.querySelectorAll("#maps .card[data-title]")];
    if (cards.length === 0) return [];
    const opacity = Number(getComputedStyle(document.documentElement).getPropertyValue("--map-opacity") || 0.5);
    const [first] = cards[0].getElementsByTagName("img");
    const width = first.naturalWidth, height = first.naturalHeight, title = 24, gap = 4;
    const canvas = document.createElement("canvas");
    canvas.width = 3 * width + 2 * gap;
    canvas.height = cards.length * (height + title);
    const pen = canvas.getContext("2d");
    pen.fillStyle = "white";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.font = "14px system-ui, sans-serif";
    cards.forEach((card, row) => {
      const [tile, map] = card.getElementsByTagName("img");
      const top = row * (height + title) + title;
      pen.fillStyle = "black";
      pen.fillText(card.dataset.title, 2, top - 7);
      pen.drawImage(tile, 0, top);
      pen.drawImage(map, width + gap, top);
      pen.drawImage(tile, 2 * (width + gap), top);
      pen.globalAlpha = opacity;
      pen.drawImage(map, 2 * (width + gap), top);
      pen.globalAlpha = 1;
    });
    canvas.toBlob((blob) => pathmnist.save(blob, "pathmnist.png"), "image/png");
    return [];
  },

  saveText(text) {
    pathmnist.save(new Blob([text], { type: "application/json" }), "pathmnist.json");
    return [];
  },

  save(blob, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  },
};
