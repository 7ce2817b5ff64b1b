export const model = () => () => {};
