// Plays a recording, or a part of it.

export class Player {
  #audio;
  #address = "";
  #end = Infinity;
  #watchers = [];

  constructor(audio) {
    this.#audio = audio;
    audio.addEventListener("play", () => this.#tick());
    audio.addEventListener("pause", () => { this.#end = Infinity; });
    for (const event of ["seeked", "timeupdate", "ended"]) {
      audio.addEventListener(event, () => this.#tell());
    }
  }

  // Calls `watch(seconds)` whenever the position changes.
  onTime(watch) {
    this.#watchers.push(watch);
  }

  load(blob) {
    this.unload();
    this.#address = URL.createObjectURL(blob);
    this.#audio.src = this.#address;
  }

  unload() {
    this.#audio.pause();
    this.#audio.removeAttribute("src");
    this.#audio.load();
    if (this.#address) URL.revokeObjectURL(this.#address);
    this.#address = "";
  }

  get time() {
    return this.#audio.currentTime;
  }

  get playing() {
    return !this.#audio.paused;
  }

  play(start, end = Infinity) {
    if (!this.#address) return;
    this.#audio.currentTime = Math.max(0, start);
    this.#end = end;
    // An error is shown by the element and by those who listen to its event.
    this.#audio.play().catch(() => {});
  }

  pause() {
    this.#audio.pause();
  }

  toggle() {
    if (this.playing) this.pause();
    else if (this.#address) this.#audio.play().catch(() => {});
  }

  #tick() {
    this.#tell();
    if (this.#audio.currentTime >= this.#end) this.#audio.pause();
    if (!this.#audio.paused) requestAnimationFrame(() => this.#tick());
  }

  #tell() {
    for (const watch of this.#watchers) watch(this.#audio.currentTime);
  }
}
