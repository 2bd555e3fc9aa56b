import { Component, type ReactNode } from 'react';

/** Says so when the editor cannot be loaded: the network failed, or a new release has replaced its files. */
export class LoadBoundary extends Component<{ children: ReactNode }, { failed: boolean }> {
  override state = { failed: false };

  static getDerivedStateFromError() {
    return { failed: true };
  }

  override render() {
    if (!this.state.failed) return this.props.children;
    return (
      <div className="loading" role="alert">
        <p>The editor could not be loaded.</p>
        <button type="button" onClick={() => location.reload()}>
          Reload the page
        </button>
      </div>
    );
  }
}
